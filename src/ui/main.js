// The shell: address, search, keyboard, notices. What is shown where.

import { age, clock, count, icon, gatewayNow, readGuide, tick } from './words.js';
import { connect, listen, refresh, retry, setToken, store } from './store.js';
import { foreign, h, put, tamed, throttled } from './dom.js';
import * as views from './views.js';

const VIEWS = { plugins: views.Plugins, plugin: views.Plugin, hosts: views.Hosts, host: views.Host, sockets: views.Sockets, events: views.Events, help: views.Help };
const NAVIGATION = { plugin: 'plugins', host: 'hosts' };

const main = document.getElementById('main');
const search = document.getElementById('search');
const notices = document.getElementById('notices');
const live = document.getElementById('live');
const help = document.getElementById('help');

// Address ------------------------------------------------------------------------------------------------------------------

/** The address behind the `#`: view, name, query. */
class Route {
  constructor() {
    const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
    const [view = '', ...rest] = path.split('/');
    this.view = Object.hasOwn(VIEWS, view) ? view : 'plugins';
    try { this.name = decodeURIComponent(rest.join('/')); } catch { this.name = rest.join('/'); }
    this.query = Object.fromEntries(new URLSearchParams(query));
  }

  get key() { return `${this.view}/${this.name}`; }

  /** Changes parts of the query; `undefined` takes one away. */
  set(changes) {
    Object.assign(this.query, changes);
    const query = new URLSearchParams(Object.entries(this.query).filter(([, value]) => value !== undefined && value !== ''));
    for (const [name, value] of Object.entries(this.query)) if (value === undefined || value === '') delete this.query[name];
    const name = this.name ? `/${encodeURIComponent(this.name)}` : '';
    history.replaceState(null, '', `#/${this.view}${name}${query.size ? `?${query}` : ''}`);
    view?.update({ route: true });
  }
}

let route = null;
let view = null;

function go() {
  const next = new Route();
  if (view && next.key === route.key) {
    route.query = next.query;
    search.value = route.query.q ?? '';
    view.update({ route: true });
    return;
  }
  const isFirst = route === null;
  view?.end();
  route = next;
  view = new VIEWS[route.view](route);
  put(main, view.element);
  document.title = `${tamed(view.title)} · csi-gateway`;
  for (const link of document.querySelectorAll('#views a')) {
    if (link.dataset.view === (NAVIGATION[route.view] ?? route.view)) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  search.value = route.query.q ?? '';
  view.update();
  if (!isFirst) {
    scrollTo(0, 0);
    if (document.activeElement !== search) main.focus({ preventScroll: true });
  }
}

// Search -------------------------------------------------------------------------------------------------------------------

const LISTS = ['plugins', 'hosts', 'sockets', 'events'];

search.addEventListener('input', () => {
  if (LISTS.includes(route.view)) route.set({ q: search.value || undefined });
  else if (search.value) {
    history.pushState(null, '', `#/plugins?q=${encodeURIComponent(search.value)}`);
    go();
  }
});
search.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === 'ArrowDown') {
    event.preventDefault();
    if (view.table?.items.length === 1 && view.table.href?.(view.table.items[0]) && event.key === 'Enter') {
      search.blur();
      location.hash = view.table.href(view.table.items[0]);
    } else { view.table && (view.table.cursor = -1); view.table?.move(1); }
  }
  if (event.key === 'Escape') {
    event.preventDefault();
    if (search.value) { search.value = ''; search.dispatchEvent(new Event('input')); } else search.blur();
  }
  event.stopPropagation();
});

// Keyboard -----------------------------------------------------------------------------------------------------------------

const KEYS = [
  ['/', 'Search'], ['j, k', 'Next row, row before'], ['Enter', 'Open the row'], ['Esc', 'Clear the search; go back'],
  ['g p, g h, g s, g e', 'Plugins, hosts, sockets, events'], ['t', 'Light or dark'], ['?', 'This list'],
];
put(help, h('h2', { id: 'help-title' }, 'Keyboard'), h('dl', { class: 'keys' }, KEYS.map(([keys, what]) => h('div', null, h('dt', null, keys.split(', ').flatMap((key, at) => [at > 0 && ' ', h('kbd', null, key)])), h('dd', null, what)))),
  h('button', { type: 'button', onclick: () => help.close() }, 'Close'));
document.getElementById('keys').addEventListener('click', () => help.showModal());

let isGoing = false;
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.matches('input, textarea, select')) return;
  const wasGoing = isGoing;
  isGoing = false;
  if (wasGoing) {
    const to = { p: 'plugins', h: 'hosts', s: 'sockets', e: 'events' }[event.key];
    if (to) { location.hash = `#/${to}`; return; }
  }
  switch (event.key) {
    case '/': event.preventDefault(); search.focus(); search.select(); break;
    case 'j': view.table?.move(1); break;
    case 'k': view.table?.move(-1); break;
    case 'g': isGoing = true; break;
    case 't': nextTheme(); break;
    case '?': help.showModal(); break;
    case 'Enter': {
      const target = view.table?.target;
      if (target && !event.target.matches('a, button, summary')) location.hash = target;
      break;
    }
    case 'Escape':
      if (LISTS.includes(route.view) && Object.keys(route.query).length) { search.value = ''; location.hash = `#/${route.view}`; }
      else if (NAVIGATION[route.view] || route.view === 'help') location.hash = `#/${NAVIGATION[route.view] ?? 'plugins'}`;
      break;
    default:
  }
});
document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });

// Light and dark -----------------------------------------------------------------------------------------------------------

const THEMES = { '': ['◐', 'as the system'], light: ['☀', 'light'], dark: ['☾', 'dark'] };
const themeButton = document.getElementById('theme');

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const [sign, words] = THEMES[theme];
  themeButton.textContent = sign;
  themeButton.setAttribute('aria-label', `Colours: ${words}`);
  themeButton.title = `Colours: ${words}`;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(document.documentElement.dataset.theme ?? '') + 1) % names.length];
  try { localStorage.setItem('csi-gateway-theme', theme); } catch { /* not kept, then */ }
  showTheme(theme);
}

themeButton.addEventListener('click', nextTheme);
let kept = '';
try { kept = localStorage.getItem('csi-gateway-theme') ?? ''; } catch { /* as the system */ }
showTheme(Object.hasOwn(THEMES, kept) ? kept : '');

// Notices ------------------------------------------------------------------------------------------------------------------

function notice(name, ...content) { return h('div', { class: `notice is-${name}` }, icon(name), h('div', null, content)); }

let shownNotices = '';

function drawNotices() {
  const { link, gateway } = store;
  const words = { live: 'Live', connecting: 'Connecting', down: 'Not connected', denied: 'Token needed' };
  const shapes = { live: 'healthy', connecting: 'starting', down: 'unhealthy', denied: 'lost' };
  if (live.dataset.kind !== link.kind) {
    live.dataset.kind = link.kind;
    put(live, icon(shapes[link.kind]), words[link.kind]);
  }
  // A connection that is only made anew, as proxies have it now and then, is no news.
  const isDown = link.kind === 'down' && Date.now() - link.since > 800;
  document.body.classList.toggle('is-old', isDown);
  const list = [];
  if (isDown) list.push(['down', link.since, link.why]);
  if (link.kind === 'denied') list.push(['denied', link.text, store.token !== '']);
  if (!isDown && store.back && Date.now() - store.back.at < 15_000) list.push(['back', store.back.isAnother]);
  if (store.updated) list.push(['updated', gateway?.Version]);
  if (gateway && link.kind !== 'denied') {
    if (!gateway.Scanned && !isDown) list.push(['scanning']);
    if (gateway.Durability === 'not durable') list.push(['not durable', gateway.DurabilityReason]);
    if (gateway.DirectoryEvents?.Problem) list.push(['polling', gateway.DirectoryEvents.Problem, gateway.DirectoryEvents.Polled]);
    if (gateway.ACL?.Problem) list.push(['acl', gateway.ACL.Problem]);
  }
  const key = JSON.stringify(list);
  if (key === shownNotices) return;
  shownNotices = key;
  put(notices, list.map(([kind, one, two]) => {
    switch (kind) {
      case 'down': return notice('unhealthy', h('b', null, 'The gateway is away'), ` since ${clock(one)}: ${two}. What is shown is what was known then; this page goes on by itself when it is back. `, h('button', { type: 'button', class: 'small', onclick: retry }, 'Try now'));
      case 'denied': return tokenForm(one, two);
      case 'back': return notice('healthy', h('b', null, 'The gateway is back'), one ? ': it was restarted. What is shown is current again.' : '. What is shown is current again.');
      case 'updated': return notice('new', h('b', null, `The gateway is of version ${one} now`), '. ', h('button', { type: 'button', class: 'small', onclick: () => location.reload() }, 'Load its page'));
      case 'scanning': return notice('starting', h('b', null, 'The gateway has just started'), ' and looks at every driver. What is shown is what it knew before.');
      case 'not durable': return notice('degraded', h('b', null, 'Not durable'), ': what is learnt now is not on disk. ', foreign(one));
      case 'polling': return notice('degraded', h('b', null, 'No directory events'), `: ${count(two, 'directory').replace('directorys', 'directories')} looked at every second instead. `, foreign(one));
      default: return notice('degraded', h('b', null, 'ACLs'), ': the last good policies and tokens are in force. ', foreign(one));
    }
  }));
  if (link.kind === 'denied') put(main);
  else if (view && !view.element.isConnected) put(main, view.element);
}

function tokenForm(text, wasRefused) {
  const input = h('input', { type: 'password', id: 'token', autocomplete: 'off', spellcheck: 'false', required: true });
  const form = h('form', { class: 'token' },
    h('h1', null, icon('lost'), wasRefused ? 'This token is not enough' : 'This gateway asks for a token'),
    h('p', null, foreign(text)),
    h('p', null, h('label', { for: 'token' }, 'Token'), input, h('button', { type: 'submit' }, 'Go on')),
    h('p', { class: 'quiet small' }, 'It needs ', h('code', null, 'plugin { policy = "read" }'), ', is kept in this tab until you close it, and goes to this gateway only. Make one with ', h('code', null, 'csi-gateway acl token create'), '.'));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    setToken(input.value.trim());
    shownNotices = '';
    restart();
  });
  setTimeout(() => input.focus());
  return form;
}

/** The view from its beginning: whoever looks is another one now. */
function restart() {
  view?.end();
  view = null;
  go();
}

function drawAbout() {
  const { gateway } = store;
  const about = document.getElementById('about');
  if (!gateway) { put(about); return; }
  put(about, `csi-gateway ${gateway.Version}, ${gateway.Role}, up ${age(gatewayNow() - store.began)}, ${count(gateway.Instances, 'instance')}, state ${gateway.Durability === 'memory' ? 'in memory' : gateway.Durability}. `,
    store.token && h('button', { type: 'button', class: 'small', onclick: () => { setToken(''); restart(); } }, 'Forget the token'));
}

// Everything together ------------------------------------------------------------------------------------------------------

const drawPlugins = throttled(() => { if (route?.view === 'plugins') view.update({ plugins: true }); }, 200);

listen((change) => {
  if (change.link || change.gateway) { drawNotices(); drawAbout(); }
  if (route?.view === 'plugins') { if (change.plugins || change.link) drawPlugins(); return; }
  view?.update(change);
});

setInterval(() => {
  if (document.hidden) return;
  tick();
  drawNotices();
  // One who has been well for a while is no longer shown among the ill.
  if (route.view === 'plugins' && main.querySelector('.trouble.is-healthy')) drawPlugins();
  if (store.gateway && !store.gateway.Scanned) refresh();
}, 1000);
setInterval(() => { if (!document.hidden) { refresh(); drawAbout(); view?.update({ tick: true }); } }, 15_000);

document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  tick();
  drawNotices();
  refresh();
});
addEventListener('hashchange', go);
go();
drawNotices();
connect();
fetch('unhealthy.md').then((answer) => answer.text()).then((text) => { readGuide(text); view?.update({ plugins: true, route: true }); }).catch(() => {});
