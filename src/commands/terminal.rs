//! Where output goes: a terminal with its width, or a pipe; and the one line that is written over again and again.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

/// What is known of an output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// Whether lines can be written over: a terminal that understands how.
    pub(super) is_live: bool,
    /// Whether text may be bold.
    pub(super) has_style: bool,
    /// How wide it is.
    pub(super) columns: usize,
    rows: usize,
}

impl Screen {
    /// The screen behind standard output or standard error. It may change its size, so nobody keeps this.
    pub(super) fn of(output: &(impl AsFd + IsTerminal)) -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_live = output.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let size = tcgetwinsize(output).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        Self { is_live, has_style: is_live && !is_set("NO_COLOR"), columns, rows }
    }

    /// A heading.
    pub(super) fn bold(self, text: &str) -> String {
        if self.has_style { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// As much of a text as the screen has room for, from its top, to be written over whatever is there.
    pub(super) fn page(self, text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let room = self.rows.saturating_sub(1).max(1);
        let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
        let mut page = String::from("\u{1b}[H");
        for line in &lines[..shown] {
            page.push_str(&cut(line, self.columns));
            page.push_str("\u{1b}[K\n");
        }
        if shown < lines.len() {
            page.push_str(&cut(&format!("… {} more", lines.len() - shown), self.columns));
            page.push_str("\u{1b}[K\n");
        }
        page.push_str("\u{1b}[J");
        page
    }
}

/// As much of a line as fits into so many columns; an ellipsis stands for the rest.
pub(super) fn cut(line: &str, columns: usize) -> String {
    let width = |character: char| character.width().unwrap_or(0);
    if line.chars().map(width).sum::<usize>() <= columns {
        return line.to_owned();
    }
    let mut used = 0;
    let room = columns.saturating_sub(1);
    // Marks have no width: they stay with the letter before them.
    let fits = |character: &char| {
        used += width(*character);
        used <= room
    };
    let mut out: String = line.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// What is going on, on standard error: one line that changes on a terminal, a line per change in a pipe.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last: String,
    is_shown: bool,
}

impl Progress {
    /// Says it. `since` is a measure of time that a terminal shows, and a pipe does not.
    pub(super) fn say(&mut self, text: &str, since: &str) {
        let mut error = std::io::stderr().lock();
        let screen = Screen::of(&error);
        // Nobody to tell if standard error is closed.
        let _ = if screen.is_live {
            self.is_shown = true;
            // One column stays free: some terminals begin a new line after the last one.
            let line = cut(&format!("{since}  {text}"), screen.columns.saturating_sub(1));
            write!(error, "\r{line}\u{1b}[K").and_then(|()| error.flush())
        } else if self.last == text {
            Ok(())
        } else {
            writeln!(error, "{text}")
        };
        text.clone_into(&mut self.last);
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut error = std::io::stderr().lock();
            let _ = write!(error, "\r\u{1b}[K").and_then(|()| error.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn a_line_is_cut_by_what_it_takes_on_the_screen_and_marks_stay_with_their_letter() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("驱动程序", 5), "驱动…");
        assert_eq!(cut("驱动程序", 4), "驱…");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        for columns in 0..20 {
            let line = cut("סיב-驱动-नमस्ते-e\u{301}-zzzz", columns);
            assert!(line.width() <= columns.max(1), "{columns}: {line}");
        }
    }

    #[test]
    fn a_page_has_no_more_lines_than_the_screen() {
        let screen = Screen { is_live: true, has_style: false, columns: 10, rows: 4 };
        assert_eq!(screen.page("a\nb\nc").matches('\n').count(), 3);
        let page = screen.page("a\nb\nc\nd");
        assert!(page.contains("b\u{1b}[K\n… 2 more") && !page.contains('c'), "{page:?}");
    }
}
