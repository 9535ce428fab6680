//! The scripted driver, on real sockets: what `demo` shows and what all tests talk to.
