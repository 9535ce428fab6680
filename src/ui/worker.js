// What all tabs share: HTTP/1.1 gives a browser six connections to a gateway, and each stream takes one for good. There is
// one link for each token in use (nearly always one), as long as a tab listens.

import { Link } from './link.js';

const root = new URL('../', self.location.href).href;
// A tab that is closed does not always say so; one in the background may be allowed one timer a minute.
const SILENT = 200_000;
const links = new Map();

function leave(port) {
  for (const [token, { link, ports }] of links) {
    if (ports.delete(port) && ports.size === 0) {
      link.end();
      links.delete(token);
    }
  }
}

function join(port, token) {
  let shared = links.get(token);
  if (shared?.ports.has(port)) return shared.ports.set(port, Date.now());
  leave(port);
  if (!shared) {
    const ports = new Map();
    shared = { ports, link: new Link(root, token, (message) => { for (const one of ports.keys()) one.postMessage(message); }) };
    links.set(token, shared);
  }
  shared.ports.set(port, Date.now());
  port.postMessage(shared.link.standing());
}

self.onconnect = (event) => {
  const [port] = event.ports;
  port.onmessage = ({ data }) => {
    if (data.kind === 'join') join(port, data.token);
    if (data.kind === 'leave') leave(port);
    if (data.kind === 'retry') links.get(data.token)?.link.retry();
  };
};

setInterval(() => {
  for (const { ports } of links.values()) {
    for (const [port, seen] of ports) if (Date.now() - seen > SILENT) leave(port);
  }
}, 30_000);
