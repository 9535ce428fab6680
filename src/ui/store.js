// What the page knows: the sum of every plugin, kept up to date by the stream's changes. Detail is asked for by whoever shows
// it. The API's pages come first; a change that overtakes a page wins by its index.

import { paced } from './dom.js';
import { Link } from './link.js';
import { setSkew, stateOf } from './words.js';

const root = new URL('../', document.baseURI).href;
const TOKEN = 'csi-gateway-token';
// The first page is what is seen first; the others are what search needs.
const FIRST_PAGE = 200;
const PAGE = 2000;

export const store = {
  plugins: new Map(),
  /** `/v1/gateway`, as last asked for. */
  gateway: null,
  /** How the connection is: what the link said last. */
  link: { kind: 'connecting' },
  /** Whether every page has come. */
  isWhole: false,
  token: sessionStorage.getItem(TOKEN) ?? '',
};

const listeners = new Set();

/** Calls a function with each change; returns what ends that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(change) {
  for (const listener of listeners) listener(change);
}

/** The address of something of the API, without the token. */
export const address = (path) => root + path;

/** Something of the API as JSON. */
export async function ask(path, signal) {
  const response = await fetch(address(path), { headers: store.token ? { 'X-Nomad-Token': store.token } : {}, cache: 'no-store', signal });
  if (!response.ok) {
    const text = (await response.text()) || response.statusText;
    throw Object.assign(new Error(text), { status: response.status });
  }
  return { body: await response.json(), index: Number(response.headers.get('X-Nomad-Index')), next: response.headers.get('X-Nomad-Nexttoken') };
}

// The connection -----------------------------------------------------------------------------------------------------------

let port = null;
let own = null;

const policy = globalThis.trustedTypes?.createPolicy('csi-gateway', {
  createScriptURL: (url) => { if (url === 'worker.js') return url; throw new TypeError(url); },
}) ?? { createScriptURL: (url) => url };

/** Connects, or connects with another token. */
export function connect() {
  if (!port && !own && globalThis.SharedWorker) {
    try {
      const worker = new SharedWorker(policy.createScriptURL('worker.js'), { type: 'module', name: 'csi-gateway' });
      worker.onerror = () => { port = null; connectAlone(); };
      port = worker.port;
      port.onmessage = ({ data }) => heard(data);
      const join = () => port?.postMessage({ kind: 'join', token: store.token });
      setInterval(join, 20_000);
      // A page that sleeps would only pile up what it is told; it hears how things are when it is back.
      const leave = () => port?.postMessage({ kind: 'leave' });
      addEventListener('pagehide', leave);
      addEventListener('pageshow', (event) => event.persisted && join());
      document.addEventListener('freeze', leave);
      document.addEventListener('resume', join);
    } catch {
      port = null;
    }
  }
  if (port) port.postMessage({ kind: 'join', token: store.token });
  else connectAlone();
}

function connectAlone() {
  own?.end();
  own = new Link(root, store.token, heard);
}

/** Tries to connect at once. */
export function retry() {
  if (port) port.postMessage({ kind: 'retry', token: store.token });
  else own?.retry();
}

/** Goes on with another token, or with none. */
export function setToken(token) {
  store.token = token;
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
  forgetAll();
  connect();
}

function forgetAll() {
  store.plugins.clear();
  store.isWhole = false;
  store.gateway = null;
}

function heard(message) {
  if (message.kind === 'line') return apply(message.line);
  const before = store.link;
  store.link = message;
  if (message.kind === 'live') {
    const { gateway } = message;
    const began = message.at - gateway.UptimeSeconds * 1000;
    // Whole seconds: it may look up to one younger than it is, never older.
    if (before.kind === 'down') {
      const isAnother = began > before.since - 500;
      if (isAnother || Date.now() - before.since > 3000) store.back = { at: Date.now(), isAnother };
    }
    store.updated = store.version !== undefined && store.version !== gateway.Version;
    store.version ??= gateway.Version;
    store.began = began;
    store.gateway = gateway;
    if (message.date) setSkew(Date.parse(message.date) - message.at);
    load(message.index);
  } else if (message.kind === 'denied') {
    forgetAll();
  }
  tell({ link: message, before });
}

/** Asks how the gateway itself is. */
export const refresh = paced(async (signal) => {
  if (store.link.kind !== 'live' || document.hidden) return;
  try {
    store.gateway = (await ask('v1/gateway', signal)).body;
    tell({ gateway: true });
  } catch { /* the link says it */ }
});

// Plugins ------------------------------------------------------------------------------------------------------------------

let loading = null;
// While pages come: which plugins the stream changed, at which index.
let overtaken = new Map();

async function load(index) {
  loading?.abort();
  const abort = loading = new AbortController();
  overtaken = new Map();
  store.isWhole = false;
  const found = new Set();
  try {
    let next = '';
    do {
      // Not older than what the stream begins with, whichever gateway answers.
      const fresh = next === '' ? `per_page=${FIRST_PAGE}&index=${Math.max(1, index - 1)}&wait=5s` : `per_page=${PAGE}&next_token=${encodeURIComponent(next)}`;
      const page = await ask(`v1/gateway/plugins?${fresh}`, abort.signal);
      for (const plugin of page.body) {
        found.add(plugin.ID);
        if (!(overtaken.get(plugin.ID) > page.index)) keep(plugin, page.index);
      }
      next = page.next ?? '';
      tell({ plugins: true });
    } while (next !== '');
    for (const id of store.plugins.keys()) if (!found.has(id) && !overtaken.has(id)) store.plugins.delete(id);
    store.isWhole = true;
    tell({ plugins: true, whole: true });
  } catch (error) {
    // The stream ends, too, where the gateway does; what is left is an answer that makes no sense.
    if (!abort.signal.aborted) setTimeout(() => loading === abort && store.link.kind === 'live' && load(index), 2000);
  }
}

function keep(plugin, index) {
  plugin.state = stateOf(plugin);
  plugin.index = index;
  store.plugins.set(plugin.ID, plugin);
}

function apply(line) {
  for (const plugin of line.Plugins) {
    // A page may be newer than what the stream still has to tell.
    if (store.plugins.get(plugin.ID)?.index > line.Index) continue;
    overtaken.set(plugin.ID, line.Index);
    keep(plugin, line.Index);
  }
  for (const id of line.RemovedPlugins) {
    overtaken.set(id, line.Index);
    store.plugins.delete(id);
  }
  if (store.isWhole) overtaken.clear();
  tell({ plugins: line.Plugins.length > 0 || line.RemovedPlugins.length > 0, line });
}

/** What a plugin is found by, in lower case. */
export function haystack(plugin) {
  plugin.hay ??= [plugin.ID, plugin.Provider, ...Object.keys(plugin.Versions), plugin.state,
    ...plugin.Unwell.flatMap((one) => [one.Host, one.Phase, one.Reason.Text, one.Reason.Description])].join('\n').toLowerCase();
  return plugin.hay;
}
