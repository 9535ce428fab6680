// The views. Each is made for an address, draws what it has when something changes, and ends when the reader goes elsewhere.

import { PHASES, CAPABILITIES, advice, capitalized, chip, controllers, count, eventText, gatewayNow, guide, icon, nodes, reasonOf, topologyText, version, when } from './words.js';
import { address, ask, haystack, store } from './store.js';
import { copyable, foreign, h, keep, paced, put, tamed, throttled } from './dom.js';
import { Table } from './table.js';
import { Timeline, phasesOf } from './timeline.js';

const CARDS = 6;
/** How long somebody who was ill is still shown among the ill, so that the page does not jump at each recovery. */
const RECOVERED = 60_000;
const MOST_EVENTS = 2000;

const enc = encodeURIComponent;
const pluginHref = (id) => `#/plugin/${enc(id)}`;
const hostHref = (id) => `#/host/${enc(id)}`;
const pluginLink = (id) => h('a', { href: pluginHref(id), class: 'name', title: id.length > 40 ? id : undefined }, foreign(id));
const hostLink = (id) => h('a', { href: hostHref(id) }, foreign(id));
const unlimited = (volumes) => !volumes || volumes >= 2 ** 53;
const rank = (phase) => PHASES.indexOf(phase);
const STATES = ['unhealthy', 'degraded', 'healthy'];
const ago = (time) => (time ? Date.parse(time) : 0);

/** Raw JSON, and how to get it in a terminal. */
function source(path) {
  const token = store.gateway?.ACL?.Enabled || store.token ? ' -H "X-Nomad-Token: $NOMAD_TOKEN"' : '';
  const quoted = address(path).replaceAll("'", '%27');
  return h('details', { class: 'source' }, h('summary', null, 'Raw data'),
    h('p', null, h('a', { href: address(path), rel: 'noreferrer' }, 'JSON'), store.token && h('span', { class: 'quiet' }, ' (a browser shows no token there; use the line)')),
    copyable(`curl${token} '${quoted}${path.includes('?') ? '&' : '?'}pretty'`, 'the curl line'));
}

/** An instance that is not well: what, since when, why, what to do. */
function trouble(plugin, instance, { isNamed = true, more = 0 } = {}) {
  const row = advice(instance);
  const isWell = instance.Phase === 'healthy';
  const isDead = ['gone', 'stale', 'lost'].includes(instance.Phase);
  const reason = reasonOf(instance);
  return h('article', { class: `trouble is-${instance.Phase}` }, h('div', null,
    h('div', { class: 'said' },
      h('header', null, chip(instance.Phase, instance.Word), isNamed && h('h2', null, pluginLink(plugin)),
        instance.Since && h('span', { class: 'quiet since' }, 'for ', when(instance.Since, 'for'), ', since ', when(instance.Since, 'clock'))),
      h('p', { class: 'why' }, foreign(reason)),
      !isWell && !/^(un)?healthy$/.test(instance.Reason.Description) && instance.Reason.Description !== reason && h('p', { class: 'raw quiet' }, foreign(instance.Reason.Description)),
      h('p', { class: 'where quiet' }, instance.Host ? [capitalized(instance.Role), ' on ', hostLink(instance.Host)] : instance.Where, more > 0 && h('span', null, ' · and ', h('a', { href: `${pluginHref(plugin)}?state=ill` }, `${count(more, 'instance')} more`)))),
    !isWell && h('div', { class: 'remedy' },
      row && h('p', null, h('b', null, 'Usual cause: '), row.causes, '.'),
      row && h('p', null, h('b', null, 'What to do: '), row.remedy, '. ', h('a', { href: `#/help/${instance.Phase}`, 'aria-label': `More about what to do when a driver is ${instance.Phase}` }, 'More')),
      h('details', null, h('summary', null, instance.Host ? 'Commands for that host' : 'Commands'), copyable(`csi-gateway doctor${instance.Socket && ` ${shellWord(instance.Socket)}`}`, 'the doctor command'),
        copyable(`csi-gateway history ${shellWord(plugin)}`, 'the history command'),
        isDead && h('p', { class: 'quiet small' }, 'If it is gone on purpose:'), isDead && copyable(`csi-gateway forget ${shellWord(plugin)} --host=${shellWord(instance.Host)}`, 'the forget command')))));
}

/** What a card shows of an instance. */
const likeness = (one) => [one.PluginID, one.Role, one.Host, one.Phase, one.Since, one.Reason, one.Socket];

const shellWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const fact = (label, ...value) => h('div', { class: 'fact' }, h('dt', null, label), h('dd', null, value));
const section = (title, ...content) => h('section', { class: 'card' }, h('h2', null, title), content);

function facet(label, number, isOn, onclick, name) {
  return h('button', { type: 'button', class: `facet ${name ? `is-${name}` : ''}`, 'aria-pressed': String(isOn), onclick }, name && icon(name), h('b', null, number.toLocaleString('en')), h('span', null, label));
}

/** Keeps the place of the keyboard over a redrawing of facets. */
function redrawn(element, ...children) {
  const at = [...element.querySelectorAll('button')].indexOf(document.activeElement);
  put(element, children);
  if (at >= 0) element.querySelectorAll('button')[at]?.focus();
}

const compared = {
  id: (a, b) => (a.ID < b.ID ? -1 : 1),
  provider: (a, b) => a.Provider.localeCompare(b.Provider),
  version: (a, b) => a.Version.localeCompare(b.Version, 'en', { numeric: true }),
  controllers: (a, b) => share(a.ControllersHealthy, a.ControllersExpected) - share(b.ControllersHealthy, b.ControllersExpected),
  nodes: (a, b) => share(a.NodesHealthy, a.NodesExpected) - share(b.NodesHealthy, b.NodesExpected),
  state: (a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state),
  changed: (a, b) => ago(b.ChangedTime) - ago(a.ChangedTime),
};
const share = (healthy, expected) => (expected ? healthy / expected : 2);

// Plugins ------------------------------------------------------------------------------------------------------------------

export class Plugins {
  title = 'Plugins';

  constructor(route) {
    this.route = route;
    this.summary = h('h1', { class: 'summary' });
    this.ill = h('div', { class: 'troubles' });
    this.facets = h('div', { class: 'facets', role: 'group', 'aria-label': 'Show only' });
    this.also = h('p', { class: 'also quiet' });
    this.table = new Table({
      label: 'Plugins', kind: 'plugins', height: [54, 100],
      columns: [
        { name: 'id', label: 'Plugin' }, { name: 'version', label: 'Version' }, { name: 'controllers', label: 'Controllers' },
        { name: 'nodes', label: 'Nodes' }, { name: 'state', label: 'State' }, { name: 'changed', label: 'Last change' },
      ],
      key: (plugin) => plugin.ID,
      href: (plugin) => pluginHref(plugin.ID),
      cells: (plugin) => [
        [pluginLink(plugin.ID), plugin.Provider && plugin.Provider !== plugin.ID && foreign(plugin.Provider, { class: 'sub' })],
        version(plugin), controllers(plugin), nodes(plugin),
        [chip(plugin.state), h('span', { class: 'sub' }, phasesText(plugin))],
        when(plugin.ChangedTime),
      ],
      onsort: (name) => {
        const { sort, desc } = this.route.query;
        this.route.set({ sort: name, desc: sort === name && !desc ? '1' : undefined });
      },
      empty: () => this.empty(),
    });
    this.also.hidden = true;
    this.element = h('div', { class: 'view' }, h('div', { class: 'headline' }, this.summary), this.ill, this.facets, this.also, this.table.element, source('v1/gateway/plugins'));
  }

  empty() {
    if (!store.isWhole) return 'Loading…';
    if (store.plugins.size === 0) return ['No plugin is known yet. ', h('a', { href: '#/sockets' }, 'Where drivers are looked for')];
    return ['No plugin is like that. ', h('button', { type: 'button', class: 'small', onclick: () => this.route.set({ q: undefined, state: undefined }) }, 'Show all')];
  }

  update(change) {
    if (change && !change.plugins && !change.route && !change.link && !change.found) return;
    const { q = '', state = '', sort = '', desc } = this.route.query;
    const all = [...store.plugins.values()];
    const tally = { unhealthy: 0, degraded: 0, healthy: 0, mixed: 0 };
    for (const plugin of all) {
      tally[plugin.state] += 1;
      if (Object.keys(plugin.Versions).length > 1) tally.mixed += 1;
    }
    this.headline(all, tally);
    this.cards(all);
    const only = (name) => () => this.route.set({ state: state === name ? undefined : name });
    redrawn(this.facets,
      facet('unhealthy', tally.unhealthy, state === 'unhealthy', only('unhealthy'), 'unhealthy'),
      facet('degraded', tally.degraded, state === 'degraded', only('degraded'), 'degraded'),
      facet('healthy', tally.healthy, state === 'healthy', only('healthy'), 'healthy'),
      state === 'ill' && facet('not healthy', all.filter(isIll).length, true, only('ill'), 'degraded'),
      facet('with mixed versions', tally.mixed, state === 'mixed', only('mixed'), 'skew'));
    const needle = q.trim().toLowerCase();
    const shown = all.filter((plugin) => (!state || (state === 'mixed' ? Object.keys(plugin.Versions).length > 1 : state === 'ill' ? isIll(plugin) : plugin.state === state))
      && (!needle || haystack(plugin).includes(needle)));
    const by = compared[sort] ?? compared.state;
    const sign = desc ? -1 : 1;
    shown.sort((a, b) => sign * by(a, b) || compared.id(a, b));
    this.table.sorted(sort || 'state', Boolean(desc));
    this.table.show(shown);
    this.others(needle, shown.length);
  }

  headline(all, tally) {
    const ill = tally.unhealthy + tally.degraded;
    const name = tally.unhealthy > 0 ? 'unhealthy' : ill > 0 ? 'degraded' : 'healthy';
    if (all.length === 0) put(this.summary, store.isWhole ? 'No plugins yet' : 'Plugins');
    else if (ill === 0) put(this.summary, icon('healthy'), all.length === 1 ? 'The one plugin is healthy' : `All ${all.length.toLocaleString('en')} plugins are healthy`, !store.isWhole && h('span', { class: 'quiet' }, 'so far'));
    else put(this.summary, icon(name), `${ill.toLocaleString('en')} of ${count(all.length, 'plugin')} ${ill === 1 ? 'is' : 'are'} not healthy`, !store.isWhole && h('span', { class: 'quiet' }, 'so far'));
  }

  cards(all) {
    const now = Date.now();
    const shown = [];
    let ill = 0;
    for (const plugin of all) {
      if (isIll(plugin)) ill += 1;
      else if (!recovered(plugin)) continue;
      shown.push(plugin);
    }
    const firstSince = (plugin) => (plugin.Unwell[0] ? ago(plugin.Unwell[0].Since) : Infinity);
    // Where only few were ill lately, they keep their places.
    shown.sort((a, b) => (shown.length > CARDS ? STATES.indexOf(a.state) - STATES.indexOf(b.state) || firstSince(b) - firstSince(a) : 0) || compared.id(a, b));
    const key = shown.slice(0, CARDS).map((plugin) => `${plugin.ID}\n${plugin.state}\n${plugin.ChangedTime}\n${plugin.Unwell.length}`).join('\n\n');
    if (key === this.cardsKey && this.illKey === ill && this.guideKey === guide.text) return;
    [this.cardsKey, this.illKey, this.guideKey] = [key, ill, guide.text];
    const open = new Set([...this.ill.querySelectorAll('[data-card]')].filter((card) => card.querySelector('details[open]')).map((card) => card.dataset.card));
    put(this.ill, shown.slice(0, CARDS).map((plugin) => {
      const instance = plugin.Unwell[0] ?? (isIll(plugin) ? missing(plugin) : wellAgain(plugin));
      const total = Object.entries(plugin.Phases).reduce((sum, [phase, number]) => sum + (phase === 'healthy' ? 0 : number), 0);
      const card = trouble(plugin.ID, instance, { more: Math.max(0, total - 1) });
      card.dataset.card = plugin.ID;
      if (open.has(plugin.ID)) card.querySelector('details')?.setAttribute('open', '');
      return card;
    }), ill > CARDS && h('p', { class: 'morecards' }, h('a', { href: '#/plugins?state=ill' }, `All ${ill.toLocaleString('en')} that are not healthy`)));
  }

  /** What else the search finds, and where. */
  others(needle, shown) {
    if (!needle) { this.also.hidden = true; return; }
    found(needle).then((parts) => {
      if ((this.route.query.q ?? '').trim().toLowerCase() !== needle) return;
      const q = enc(this.route.query.q);
      const links = parts.filter(([, number]) => number > 0).map(([view, number, word]) => h('a', { href: `#/${view}?q=${q}` }, count(number, word)));
      this.also.hidden = false;
      put(this.also, `${count(shown, 'plugin')} found`, links.length > 0 && [', also ', links.flatMap((link, at) => (at ? [', ', link] : [link]))], '.');
    });
  }

  end() { this.table.end(); }
}

/** Whether it was ill a moment ago: what is healthy for the first time was not. */
const recovered = (plugin) => gatewayNow() - ago(plugin.ChangedTime) < RECOVERED && ago(plugin.ChangedTime) - ago(plugin.CreateTime) > 1000;

const wellAgain = (plugin) => ({
  Host: '', Where: 'All its instances', Phase: 'healthy', Since: plugin.ChangedTime, Socket: '', Reason: { Text: 'Healthy now. Something changed less than a minute ago', Description: '', Code: null },
});

/** What is expected and was never seen: there is no instance to blame. */
function missing(plugin) {
  const parts = [['controller', plugin.ControllersHealthy, plugin.ControllersExpected], ['node', plugin.NodesHealthy, plugin.NodesExpected]].filter(([, healthy, expected]) => healthy < expected);
  const text = parts.map(([word, healthy, expected]) => `${expected} ${word}${expected === 1 ? ' is' : 's are'} expected, ${healthy} ${healthy === 1 ? 'is' : 'are'} healthy`).join('; ');
  return { Host: '', Where: `Expected as ${plugin.ExpectedSource}`, Word: 'missing', Phase: 'new', Since: null, Socket: '', Reason: { Text: text ? `${text}; the others never answered here` : 'It never answered', Description: '', Code: null } };
}

const isIll = (plugin) => plugin.state !== 'healthy' || plugin.Unwell.length > 0;

const phasesText = (plugin) => Object.entries(plugin.Phases).filter(([phase]) => phase !== 'healthy').sort(([a], [b]) => rank(a) - rank(b)).map(([phase, number]) => `${number} ${phase}`).join(', ');

// Search over everything ---------------------------------------------------------------------------------------------------

const side = { hosts: null, sockets: null, events: null, at: 0 };

async function found(needle) {
  if (performance.now() - side.at > 5000) {
    side.at = performance.now();
    side.answer = Promise.all([ask('v1/gateway/hosts'), ask('v1/gateway/sockets'), ask('v1/gateway/history?limit=1000')]).catch(() => null);
  }
  const answers = await side.answer;
  if (!answers) return [];
  const [hosts, sockets, events] = answers.map((answer) => answer.body);
  const number = (items, hay) => items.reduce((sum, item) => sum + hay(item).includes(needle), 0);
  return [['hosts', number(hosts, hostHay), 'host'], ['sockets', number(sockets.Sockets, socketHay), 'socket'], ['events', number(events, eventHay), 'event']];
}

const lower = (...parts) => parts.join('\n').toLowerCase();
const hostHay = (host) => (host.hay ??= lower(host.ID, ...host.Plugins, ...Object.keys(host.Phases)));
const socketHay = (socket) => lower(socket.Path, socket.Host, socket.PluginID ?? '', socket.Provider ?? '', socket.Phase, socket.Source, socket.Reason, socket.Role);
const eventHay = (event) => lower(event.Host, event.PluginID, event.Role, event.Kind, eventText(event), event.Reason.Text, event.Reason.Description);

/** Lines of the stream that come while an answer is waited for: it may be older than they are. */
class Overtaking {
  lines = [];
  /** Whether some are gone, because the answer takes too long: whoever waits asks once more then. */
  isCut = false;

  push(line) {
    if (this.lines.push(line) > 1000) [this.lines, this.isCut] = [[], true];
  }

  /** The answer has come, or the news that there is none: the view goes on from there. */
  settle(view) {
    view.overtaking = null;
    for (const line of this.lines) view.follow(line);
    if (this.isCut) view.load();
  }
}

// One plugin ---------------------------------------------------------------------------------------------------------------

export class Plugin {
  mine = (one) => one.PluginID === this.id;

  constructor(route) {
    this.route = route;
    this.id = route.name;
    this.title = this.id;
    this.path = `v1/gateway/plugin/${enc(this.id)}`;
    this.events = [];
    this.load = paced((signal) => this.asked(signal));
    this.head = h('div', { class: 'headline' });
    this.facts = h('dl', { class: 'facts' });
    this.ill = h('div', { class: 'troubles' });
    this.timeline = new Timeline(() => this.draw());
    this.facets = h('div', { class: 'facets', role: 'group', 'aria-label': 'Show only' });
    this.table = new Table({
      label: 'Instances', kind: 'instances', height: [62, 148],
      columns: ['Host', 'Health', 'Version', 'CSI node', 'Topology', 'Since'].map((label) => ({ name: label.toLowerCase().replace(' ', '-'), label })),
      key: (one) => `${one.Role}\n${one.Host}`,
      href: (one) => hostHref(one.Host),
      cells: (one) => [
        [h('a', { href: hostHref(one.Host), class: 'name' }, foreign(one.Host)), h('span', { class: 'sub' }, one.Role, one.AllocID && [' · ', foreign(one.AllocID)])],
        [chip(one.Phase), one.Phase !== 'healthy' && foreign(reasonOf(one), { class: 'sub', title: reasonOf(one) }),
          one.Registration && one.Registration !== 'ok' && h('span', { class: 'sub warn' }, icon('degraded'), `kubelet: ${one.Registration}`)],
        foreign(one.ProviderVersion || '–'),
        one.NodeInfo ? [foreign(one.NodeInfo.ID || '–'), h('span', { class: 'sub' }, unlimited(one.NodeInfo.MaxVolumes) ? 'no limit of volumes' : `at most ${count(one.NodeInfo.MaxVolumes, 'volume')}`)] : h('span', { class: 'quiet' }, '–'),
        topologyText(one.NodeInfo?.AccessibleTopology) ? foreign(topologyText(one.NodeInfo.AccessibleTopology), { title: topologyText(one.NodeInfo.AccessibleTopology) }) : h('span', { class: 'quiet' }, '–'),
        [when(one.Since), h('span', { class: 'sub' }, 'probed ', when(one.LastProbeTime))],
      ],
      empty: () => 'No instance is like that.',
    });
    this.matrix = h('section', { class: 'card', 'aria-labelledby': 'capabilities' });
    this.versions = h('section', { class: 'card', 'aria-labelledby': 'versions' });
    this.places = h('section', { class: 'card', 'aria-labelledby': 'topology' });
    this.warnings = h('section', { class: 'card', 'aria-labelledby': 'warnings' });
    this.list = h('ol', { class: 'eventlist' });
    this.element = h('div', { class: 'view' }, this.head, this.facts, this.ill, this.warnings, this.versions, this.timeline.element,
      h('section', { 'aria-labelledby': 'instances' }, h('h2', { id: 'instances' }, 'Instances'), this.facets, this.table.element),
      this.matrix, this.places,
      h('section', { class: 'card', 'aria-labelledby': 'recent' }, h('h2', { id: 'recent' }, 'What happened'), this.list, h('a', { href: `#/events?plugin=${enc(this.id)}` }, 'All events of this plugin')),
      source(this.path));
    this.draw = this.draw.bind(this);
    this.soon = throttled(this.draw, 150);
    put(this.head, h('h1', null, foreign(this.id)));
    this.hide(true);
    if (store.link.kind === 'live') this.load.anew();
  }

  hide(isHidden) {
    for (const child of this.element.children) if (child !== this.head) child.hidden = isHidden;
  }

  async asked(signal) {
    const overtaking = this.overtaking = new Overtaking();
    try {
      // How it is can be shown without what it was.
      const past = ask(`v1/gateway/history?limit=1000&plugin=${enc(this.id)}`, signal).catch(() => ({ body: [], index: 0 }));
      const [detail, history] = await Promise.all([ask(this.path, signal), past]);
      [this.index, this.pastIndex] = [detail.index, history.index];
      this.instances = new Map([...Object.values(detail.body.Controllers), ...Object.values(detail.body.Nodes)].map((one) => [`${one.Role}\n${one.Host}`, one]));
      this.sum = detail.body;
      this.events = history.body;
      this.failure = null;
    } catch (error) {
      if (signal.aborted) return;
      this.failure = error;
      this.instances = null;
    }
    overtaking.settle(this);
    this.draw();
  }

  update(change) {
    if (!change || change.route) { if (this.instances) this.draw(); return; }
    if (change.link?.kind === 'live') { this.load.anew(); return; }
    if (change.tick && this.instances && (this.instances.size <= 200)) { this.load(); return; }
    const { line } = change;
    if (!line) return;
    const isMine = line.Instances.some(this.mine) || line.RemovedInstances.some(this.mine) || line.Transitions.some(this.mine) || line.RemovedPlugins.includes(this.id) || line.Plugins.some((one) => one.ID === this.id);
    if (!isMine) return;
    this.overtaking?.push(line);
    if (this.instances || !this.overtaking) this.follow(line);
  }

  /** What a line of the stream changes. */
  follow(line) {
    if (!this.instances) { this.load(); return; }
    if (line.Index > this.pastIndex) this.events = [...line.Transitions.filter(this.mine).reverse(), ...this.events].slice(0, 1000);
    if (line.Index > this.index) {
      for (const one of line.Instances.filter(this.mine)) this.instances.set(`${one.Role}\n${one.Host}`, one);
      for (const one of line.RemovedInstances.filter(this.mine)) this.instances.delete(`${one.Role}\n${one.Host}`);
      this.sum = line.Plugins.find((one) => one.ID === this.id) ?? this.sum;
      if (line.RemovedPlugins.includes(this.id)) { this.instances = null; this.failure = { status: 404 }; }
    }
    this.soon();
  }

  draw() {
    if (!this.instances) {
      this.hide(true);
      if (!this.failure) return;
      put(this.head, h('h1', null, foreign(this.id)), h('p', { class: 'none' }, this.failure.status === 404 ? 'No such plugin is known: it was retired or forgotten, or never answered.' : foreign(this.failure.message),
        ' ', h('a', { href: `#/events?plugin=${enc(this.id)}` }, 'Its events')));
      return;
    }
    this.hide(false);
    const { sum } = this;
    sum.state ??= sum.ControllersHealthy + sum.NodesHealthy === 0 ? 'unhealthy' : sum.ControllersHealthy + sum.NodesHealthy >= sum.ControllersExpected + sum.NodesExpected ? 'healthy' : 'degraded';
    const all = [...this.instances.values()].sort((a, b) => rank(a.Phase) - rank(b.Phase) || a.Role.localeCompare(b.Role) || (a.Host < b.Host ? -1 : 1));
    const phases = phasesText(sum);
    put(this.head, h('p', { class: 'crumb' }, h('a', { href: '#/plugins' }, 'Plugins')), h('h1', null, foreign(this.id)), chip(sum.state), phases && h('span', { class: 'quiet' }, phases));
    const expected = sum.ExpectedSource === 'declared' ? 'declared' : 'as seen';
    put(this.facts, fact('Provider', foreign(sum.Provider || '–')), fact('Version', version(sum)),
      fact('Controllers', controllers(sum)), fact('Nodes', nodes(sum), h('span', { class: 'quiet small' }, ` expected: ${expected}`)),
      fact('Expands volumes online', yesNo(all.some((one) => one.SupportsOnlineExpand))),
      fact('First healthy', when(sum.CreateTime)), fact('Last change', when(sum.ChangedTime)));
    const ill = all.filter((one) => one.Phase !== 'healthy');
    if (ill.length === 0 && sum.state !== 'healthy') ill.push({ ...missing(sum), PluginID: this.id });
    keep(this.ill, [ill.length, guide.text.length, ill.slice(0, CARDS).map(likeness)], () => [ill.slice(0, CARDS).map((one) => trouble(this.id, one, { isNamed: false })),
      ill.length > CARDS && h('p', { class: 'morecards' }, h('a', { href: `${pluginHref(this.id)}?state=ill` }, `${count(ill.length - CARDS, 'instance')} more, below`))]);
    this.drawTimeline(all);
    this.drawTable(all);
    this.drawVersions(all);
    this.drawMatrix(all);
    this.drawPlaces(all);
    const warnings = new Map();
    for (const one of all) for (const text of one.Warnings) warnings.set(text, (warnings.get(text) ?? 0) + 1);
    this.warnings.hidden = warnings.size === 0;
    keep(this.warnings, [...warnings], () => [h('h2', { id: 'warnings' }, 'Warnings'), h('ul', null, [...warnings].map(([text, number]) => h('li', null, foreign(text), number > 1 && h('span', { class: 'quiet' }, ` (${count(number, 'instance')})`))))]);
    keep(this.list, this.events.slice(0, 12).map((event) => [event.Index, event.Role, event.Host]), () => [this.events.length === 0 && h('li', { class: 'quiet' }, 'Nothing that is remembered.'), this.events.slice(0, 12).map((event) => h('li', null, when(event.At, 'clock'), ' ', eventIcon(event), ' ', foreign(eventText(event)), h('span', { class: 'quiet' }, ` ${event.Role} on `, foreign(event.Host)), event.Reason.Text && foreign(event.Reason.Text, { class: 'sub' })))]);
  }

  drawTimeline(all) {
    const now = gatewayNow();
    const by = new Map();
    for (const event of this.events) {
      const key = `${event.Role}\n${event.Host}`;
      if (!by.has(key)) by.set(key, []);
      by.get(key).push(event);
    }
    const keys = all.map((one) => `${one.Role}\n${one.Host}`);
    // Ill ones come first already; then those that something happened to.
    keys.sort((a, b) => (rank(this.instances.get(a).Phase) - rank(this.instances.get(b).Phase)) || (by.get(b)?.length ?? 0) - (by.get(a)?.length ?? 0));
    this.timeline.show(keys.map((key) => {
      const one = this.instances.get(key);
      return { name: `${one.Host} · ${one.Role}`, href: hostHref(one.Host), parts: phasesOf(by.get(key) ?? [], one, now) };
    }));
  }

  drawTable(all) {
    const { state = '', role = '' } = this.route.query;
    const set = (name, value) => () => this.route.set({ [name]: this.route.query[name] === value ? undefined : value });
    const number = (test) => all.filter(test).length;
    redrawn(this.facets, state === 'ill' && facet('not healthy', number((one) => one.Phase !== 'healthy'), true, set('state', 'ill'), 'degraded'), PHASES.filter((phase) => number((one) => one.Phase === phase)).map((phase) => facet(phase, number((one) => one.Phase === phase), state === phase, set('state', phase), phase)),
      ['controller', 'node'].filter((name) => number((one) => one.Role === name)).map((name) => facet(count(number((one) => one.Role === name), name).replace(/^\S+ /, ''), number((one) => one.Role === name), role === name, set('role', name))));
    this.table.show(all.filter((one) => (!state || (state === 'ill' ? one.Phase !== 'healthy' : one.Phase === state)) && (!role || one.Role === role)));
  }

  drawVersions(all) {
    const by = new Map();
    for (const one of all) {
      if (!one.ProviderVersion) continue;
      if (!by.has(one.ProviderVersion)) by.set(one.ProviderVersion, new Set());
      by.get(one.ProviderVersion).add(one.Host);
    }
    this.versions.hidden = by.size < 2;
    const sorted = [...by].sort(([a], [b]) => b.localeCompare(a, 'en', { numeric: true }));
    const most = Math.max(...sorted.map(([, hosts]) => hosts.size));
    keep(this.versions, sorted.map(([name, hosts]) => [name, ...hosts]), () => [h('h2', { id: 'versions' }, `${by.size} versions run side by side`),
      h('ul', { class: 'versions' }, sorted.map(([name, hosts]) => h('li', null, foreign(name, { class: 'version' }), h('meter', { min: 0, max: most, value: hosts.size, 'aria-label': `${count(hosts.size, 'host')}` }),
        h('span', { class: 'quiet' }, count(hosts.size, 'host')), h('span', { class: 'hosts' }, [...hosts].sort().slice(0, 20).map((host) => [hostLink(host), ' ']), hosts.size > 20 && `and ${hosts.size - 20} more`))))]);
  }

  drawMatrix(all) {
    keep(this.matrix, all.map((one) => [one.Role, one.Host, one.ProviderVersion, one.Capabilities, one.UnknownCapabilities]), () => this.capabilities(all));
  }

  capabilities(all) {
    const tables = [];
    let isWide = false;
    for (const [service, title, known] of CAPABILITIES) {
      // Instances that say the same are one column.
      const groups = new Map();
      for (const one of all) {
        const says = one.Capabilities[service];
        if (says === null) continue;
        const key = JSON.stringify(says);
        if (!groups.has(key)) groups.set(key, { says, ones: [] });
        groups.get(key).ones.push(one);
      }
      if (groups.size === 0) continue;
      const columns = [...groups.values()].sort((a, b) => b.ones.length - a.ones.length).slice(0, 8);
      isWide ||= columns.length > 2;
      const names = [...new Set([...Object.keys(known), ...columns.flatMap(({ says }) => says)])];
      tables.push(h('table', { class: 'matrix' }, h('caption', null, title),
        h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Capability'), columns.map(({ ones }) => whose(ones, columns.length === 1)))),
        h('tbody', null, names.map((name) => h('tr', null, h('th', { scope: 'row' }, foreign(name, { class: 'cap' }), known[name] && h('span', { class: 'sub' }, known[name])),
          columns.map(({ says }) => h('td', null, yesNo(says.includes(name)))))))));
    }
    const unknown = [...new Set(all.flatMap((one) => one.UnknownCapabilities))];
    return [h('h2', { id: 'capabilities' }, 'Capabilities'),
      h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Tables of capabilities' }, h('div', { class: `services ${isWide ? 'is-wide' : ''}` }, tables)),
      unknown.length > 0 && h('p', { class: 'quiet' }, 'Of a newer CSI than this gateway knows: ', foreign(unknown.join(', ')))];
  }

  drawPlaces(all) {
    const by = new Map();
    for (const one of all) {
      if (!one.NodeInfo) continue;
      const text = topologyText(one.NodeInfo.AccessibleTopology);
      if (!text) continue;
      if (!by.has(text)) by.set(text, { healthy: 0, total: 0, segments: one.NodeInfo.AccessibleTopology.Segments });
      const place = by.get(text);
      place.total += 1;
      if (one.Healthy) place.healthy += 1;
    }
    this.places.hidden = by.size === 0;
    keep(this.places, [...by], () => [h('h2', { id: 'topology' }, 'Topology'), h('ul', { class: 'places' }, [...by].sort(([a], [b]) => a.localeCompare(b)).slice(0, 60).map(([, place]) => h('li', null,
      chip(place.healthy === place.total ? 'healthy' : place.healthy === 0 ? 'unhealthy' : 'degraded', `${place.healthy} of ${count(place.total, 'node')} healthy`),
      Object.entries(place.segments).map(([key, value]) => h('span', { class: 'segment' }, foreign(key), h('b', null, foreign(value)))))))]);
  }

  end() { this.load.end(); this.soon.cancel(); this.table.end(); }
}

/** The head of a column: those who say the same. */
function whose(ones, isAll) {
  const distinct = (of) => [...new Set(ones.map(of))].sort();
  const [hosts, versions] = [distinct((one) => one.Host), distinct((one) => one.ProviderVersion)];
  return h('th', { scope: 'col', title: tamed(hosts.slice(0, 30).join('\n')) }, isAll ? ones.length === 1 ? foreign(hosts[0]) : `All ${ones.length}` : capitalized(distinct((one) => one.Role).join(', ')),
    !isAll && h('span', { class: 'sub' }, hosts.length === 1 ? foreign(hosts[0]) : count(hosts.length, 'host')),
    !isAll && h('span', { class: 'sub' }, foreign(versions.slice(0, 3).join(', '))));
}

const yesNo = (is) => h('span', { class: is ? 'yes' : 'no' }, is ? '✓ yes' : '✗ no');

const eventIcon = (event) => icon(event.Kind === 'phase' || event.Kind === 'appeared' ? event.To : event.Kind === 'retired' ? 'gone' : 'skew');

// Hosts --------------------------------------------------------------------------------------------------------------------

/** A view of something that is asked for whole, and anew when it may have changed. */
class Asked {
  constructor(route, path) {
    this.route = route;
    this.path = path;
    this.load = paced((signal) => this.asked(signal));
  }

  async asked(signal) {
    try {
      this.data = (await ask(this.path, signal)).body;
      this.failure = null;
    } catch (error) {
      if (signal.aborted) return;
      this.failure = error;
    }
    this.draw();
  }

  update(change) {
    if (!change) { if (store.link.kind === 'live') this.load(); else this.draw(); } else if (change.route) this.draw();
    else if (change.link?.kind === 'live') this.load.anew();
    else if (change.line || change.tick) this.load();
  }

  end() { this.load.end(); this.table?.end(); }
}

const hostState = (host) => {
  const phases = Object.keys(host.Phases);
  if (phases.length > 0 && phases.every((phase) => phase === 'lost')) return ['lost', 'silent'];
  return host.Healthy === host.Instances ? ['healthy', 'well'] : host.Healthy === 0 ? ['unhealthy', 'ill'] : ['degraded', 'degraded'];
};

export class Hosts extends Asked {
  title = 'Hosts';

  constructor(route) {
    super(route, 'v1/gateway/hosts');
    this.summary = h('h1', { class: 'summary' }, 'Hosts');
    this.table = new Table({
      label: 'Hosts', kind: 'hosts', height: [50, 84],
      columns: [{ name: 'id', label: 'Host' }, { name: 'state', label: 'State' }, { name: 'healthy', label: 'Instances healthy' }, { name: 'plugins', label: 'Plugins' }, { name: 'notes', label: 'Notes' }],
      key: (host) => host.ID, href: (host) => hostHref(host.ID),
      cells: (host) => [h('a', { href: hostHref(host.ID), class: 'name' }, foreign(host.ID)), [chip(...hostState(host)), h('span', { class: 'sub' }, phasesText(host))],
        `${host.Healthy} of ${host.Instances}`, foreign(`${host.Plugins.length}: ${host.Plugins.slice(0, 8).join(', ')}`, { class: 'clip', title: host.Plugins.slice(0, 40).join('\n') }),
        host.Duplicates.length > 0 ? count(host.Duplicates.length, 'duplicate socket') : h('span', { class: 'quiet' }, '–')],
      empty: () => (this.failure ? foreign(this.failure.message) : this.data ? 'No host is like that.' : 'Loading…'),
    });
    this.element = h('div', { class: 'view' }, h('div', { class: 'headline' }, this.summary), this.table.element, source(this.path));
  }

  draw() {
    const needle = (this.route.query.q ?? '').trim().toLowerCase();
    const order = ['unhealthy', 'lost', 'degraded', 'healthy'];
    const all = this.data ?? [];
    const place = (host) => order.indexOf(hostState(host)[0]);
    const shown = all.filter((host) => !needle || hostHay(host).includes(needle)).sort((a, b) => place(a) - place(b) || (a.ID < b.ID ? -1 : 1));
    const ill = all.filter((host) => hostState(host)[0] !== 'healthy').length;
    if (this.data) put(this.summary, icon(ill ? 'degraded' : 'healthy'), ill ? `${ill} of ${count(all.length, 'host')} ${ill === 1 ? 'has' : 'have'} an instance that is not healthy` : all.length === 1 ? 'Everything on the one host is healthy' : `Everything on ${count(all.length, 'host')} is healthy`);
    this.table.show(shown);
  }
}

export class Host extends Asked {
  constructor(route) {
    super(route, `v1/gateway/host/${enc(route.name)}`);
    this.title = route.name;
    this.head = h('div', { class: 'headline' }, h('h1', null, foreign(route.name)));
    this.ill = h('div', { class: 'troubles' });
    this.more = h('div', { class: 'view' });
    this.table = new Table({
      label: 'Sockets of the host', kind: 'hostsockets', height: [66, 128],
      columns: [{ name: 'path', label: 'Socket' }, { name: 'state', label: 'State' }, { name: 'role', label: 'Role' }, { name: 'plugin', label: 'Plugin' }, { name: 'version', label: 'Version' }, { name: 'since', label: 'Since' }],
      key: (row) => row.path, href: (row) => pluginHref(row.plugins[0]),
      cells: (row) => [[foreign(row.path, { class: 'path', title: row.path }), row.source && h('span', { class: 'sub' }, row.source)],
        [chip(row.worst.Phase), row.worst.Phase !== 'healthy' && foreign(reasonOf(row.worst), { class: 'sub', title: reasonOf(row.worst) })],
        row.roles.length > 1 ? 'controller and node' : row.roles[0], row.plugins.map((id) => pluginLink(id)), foreign(row.worst.ProviderVersion || '–'),
        [when(row.worst.Since), h('span', { class: 'sub' }, 'probed ', when(row.worst.LastProbeTime))]],
      empty: () => (this.failure ? this.failure.status === 404 ? 'No such host is known.' : foreign(this.failure.message) : 'Loading…'),
    });
    this.element = h('div', { class: 'view' }, this.head, this.ill, this.table.element, this.more, source(this.path));
  }

  async asked(signal) {
    try { this.sockets = (await ask(`v1/gateway/sockets?host=${enc(this.route.name)}`, signal)).body.Sockets; } catch { this.sockets = []; }
    await super.asked(signal);
  }

  update(change) {
    if (change?.line && !change.line.Instances.some((one) => one.Host === this.route.name) && !change.line.RemovedInstances.some((one) => one.Host === this.route.name)) return;
    super.update(change);
  }

  draw() {
    const instances = this.failure ? [] : this.data?.Instances ?? [];
    const by = new Map();
    for (const one of instances) {
      if (!by.has(one.Socket)) by.set(one.Socket, []);
      by.get(one.Socket).push(one);
    }
    const rows = [...by].map(([path, ones]) => {
      ones.sort((a, b) => rank(a.Phase) - rank(b.Phase));
      return { path, worst: ones[0], roles: [...new Set(ones.map((one) => one.Role))].sort(), plugins: [...new Set(ones.map((one) => one.PluginID))], source: this.sockets.find((socket) => socket.Path === path)?.Source };
    });
    rows.sort((a, b) => rank(a.worst.Phase) - rank(b.worst.Phase) || (a.path < b.path ? -1 : 1));
    const ill = instances.filter((one) => one.Phase !== 'healthy');
    put(this.head, h('p', { class: 'crumb' }, h('a', { href: '#/hosts' }, 'Hosts')), h('h1', null, foreign(this.route.name)),
      instances.length > 0 && chip(ill.length === 0 ? 'healthy' : ill.length === instances.length ? 'unhealthy' : 'degraded', `${instances.length - ill.length} of ${count(instances.length, 'instance')} healthy`));
    keep(this.ill, [guide.text.length, ill.slice(0, CARDS).map(likeness)], () => ill.slice(0, CARDS).map((one) => trouble(one.PluginID, one)));
    this.table.show(rows);
    const duplicates = this.failure ? [] : this.data?.Duplicates ?? [];
    put(this.more, duplicates.length > 0 && section('Duplicates', h('p', { class: 'quiet' }, 'The same plugin and role at a second socket: only one of them counts.'),
      h('ul', null, duplicates.map((one) => h('li', null, foreign(one.Socket, { class: 'path' }), ` (${one.Role} of `, pluginLink(one.PluginID), '); what counts is ', foreign(one.Counts, { class: 'path' })))),
    ), h('p', null, h('a', { href: `#/events?host=${enc(this.route.name)}` }, 'All events of this host')));
  }
}

// Sockets ------------------------------------------------------------------------------------------------------------------

// What is alike on several hosts, once.
function places(searched) {
  const by = new Map();
  for (const place of searched) {
    const key = JSON.stringify([place.Place, place.What, place.Exists, place.Searched, place.Problem]);
    const sum = by.get(key) ?? { ...place, Found: 0, Ignored: 0, hosts: 0 };
    by.set(key, { ...sum, Found: sum.Found + place.Found, Ignored: sum.Ignored + place.Ignored, hosts: sum.hosts + 1 });
  }
  return [...by.values()];
}

export class Sockets extends Asked {
  title = 'Sockets';

  constructor(route) {
    super(route, 'v1/gateway/sockets');
    this.searched = h('div');
    this.table = new Table({
      label: 'Sockets', kind: 'sockets', height: [66, 128],
      columns: [{ name: 'path', label: 'Socket' }, { name: 'state', label: 'State' }, { name: 'role', label: 'Role' }, { name: 'plugin', label: 'Plugin' }, { name: 'process', label: 'Process' }, { name: 'probed', label: 'Last probe' }],
      key: (socket) => `${socket.Host}\n${socket.Path}`, href: (socket) => socket.PluginID && pluginHref(socket.PluginID),
      cells: (socket) => [[foreign(socket.Path, { class: 'path', title: socket.Path }), h('span', { class: 'sub' }, socket.Source, this.isFleet && [' · ', h('a', { href: hostHref(socket.Host) }, foreign(socket.Host))])],
        [socket.Ignored ? h('span', { class: 'chip is-new' }, icon('gone'), 'Left alone') : chip(socket.Phase), socket.Reason && foreign(socket.Reason, { class: 'sub', title: socket.Reason })],
        socket.Role, socket.PluginID ? pluginLink(socket.PluginID) : h('span', { class: 'quiet' }, '–'), socket.PID ? `${socket.PID}` : h('span', { class: 'quiet' }, '–'),
        [when(socket.LastProbeTime), socket.LastPollSeconds !== null && h('span', { class: 'sub' }, `took ${(socket.LastPollSeconds * 1000).toFixed(0)} ms`)]],
      empty: () => (this.failure ? foreign(this.failure.message) : this.data ? 'No socket was found.' : 'Loading…'),
    });
    this.element = h('div', { class: 'view' }, h('div', { class: 'headline' }, h('h1', null, 'Sockets')), this.table.element, this.searched, source(this.path));
  }

  draw() {
    const needle = (this.route.query.q ?? '').trim().toLowerCase();
    const order = (socket) => (socket.Ignored ? PHASES.length : rank(socket.Phase));
    const sockets = this.data?.Sockets ?? [];
    this.isFleet = new Set(sockets.map((socket) => socket.Host)).size > 1;
    this.table.show(sockets.filter((socket) => !needle || socketHay(socket).includes(needle)).sort((a, b) => order(a) - order(b) || (a.Path < b.Path ? -1 : a.Path > b.Path ? 1 : a.Host < b.Host ? -1 : 1)));
    const searched = places(this.data?.Searched ?? []);
    const left = this.data?.LeftOut ?? 0;
    put(this.searched, left > 0 && h('p', { class: 'warn' }, icon('degraded'), ` ${left} more of hosts that have too many: ask their own agents`),
      searched.length > 0 && section('Places that are searched', h('ul', { class: 'searched' }, searched.map((place) => h('li', null,
        foreign(place.Place, { class: 'path' }), ` ${place.What}: `, !place.Exists ? 'does not exist' : !place.Searched ? 'not searched' : `${place.Found} found${place.Ignored ? `, ${place.Ignored} left alone` : ''}`,
        place.hosts > 1 && ` (on ${place.hosts} hosts)`, place.Problem && h('span', { class: 'warn' }, ' ', icon('degraded'), foreign(place.Problem)))))));
  }
}

// Events -------------------------------------------------------------------------------------------------------------------

export class Events {
  title = 'Events';

  constructor(route) {
    this.route = route;
    this.load = paced((signal) => this.asked(signal));
    this.summary = h('h1', null, 'Events');
    this.filters = h('p', { class: 'filters' });
    this.table = new Table({
      label: 'Events', kind: 'events', height: [54, 128],
      columns: [{ name: 'time', label: 'Time' }, { name: 'message', label: 'What happened' }, { name: 'plugin', label: 'Plugin' }, { name: 'host', label: 'Host' }],
      key: (row) => row.key, href: (row) => pluginHref(row.PluginID),
      cells: (row) => [[when(row.At, 'clock'), row.times > 1 && h('span', { class: 'sub' }, `${row.times} times since `, when(row.first, 'clock'))],
        [h('span', { class: 'happened' }, eventIcon(row), foreign(eventText(row))), row.Reason.Text && foreign(row.Reason.Text, { class: 'sub', title: row.Reason.Text })],
        pluginLink(row.PluginID), [hostLink(row.Host), h('span', { class: 'sub' }, row.Role)]],
      empty: () => (this.failure ? foreign(this.failure.message) : this.events ? 'Nothing happened.' : 'Loading…'),
    });
    this.element = h('div', { class: 'view' }, h('div', { class: 'headline' }, this.summary), this.filters, this.table.element, source(this.path));
    this.soon = throttled(() => this.draw(), 200);
    if (store.link.kind === 'live') this.load.anew();
  }

  get path() {
    const { plugin } = this.route.query;
    return `v1/gateway/history?limit=1000${plugin ? `&plugin=${enc(plugin)}` : ''}`;
  }

  async asked(signal) {
    this.of = this.route.query.plugin;
    const overtaking = this.overtaking = new Overtaking();
    try {
      const answer = await ask(this.path, signal);
      [this.events, this.index, this.failure] = [answer.body, answer.index, null];
    } catch (error) {
      if (signal.aborted) return;
      this.failure = error;
    }
    overtaking.settle(this);
    this.draw();
  }

  update(change) {
    if (!change) return;
    if (change.link?.kind === 'live' || (change.route && this.of !== this.route.query.plugin)) { this.load.anew(); return; }
    if (change.route) { this.draw(); return; }
    if (!change.line?.Transitions.length) return;
    this.overtaking?.push(change.line);
    this.follow(change.line);
  }

  /** What a line of the stream adds. */
  follow(line) {
    if (!this.events || line.Index <= this.index) return;
    this.events = [...line.Transitions.toReversed(), ...this.events].slice(0, MOST_EVENTS);
    this.soon();
  }

  draw() {
    const { q = '', plugin, host, all } = this.route.query;
    const needle = q.trim().toLowerCase();
    const shown = (this.events ?? []).filter((event) => (!plugin || event.PluginID === plugin) && (!host || event.Host === host) && (!needle || eventHay(event).includes(needle)));
    const rows = all ? shown.map((event, at) => ({ ...event, times: 1, key: `${event.Index}-${shown.length - at}` })) : gathered(shown);
    const without = (name, text) => h('button', { type: 'button', class: 'small', onclick: () => this.route.set({ [name]: undefined }) }, text, ' ✕');
    put(this.filters, plugin && without('plugin', ['Plugin ', foreign(plugin)]), host && without('host', ['Host ', foreign(host)]),
      h('label', null, (() => {
        const box = h('input', { type: 'checkbox', onchange: () => this.route.set({ all: box.checked ? undefined : '1' }) });
        box.checked = !all;
        return box;
      })(), ' Gather repeats'));
    this.table.show(rows);
  }

  end() { this.load.end(); this.soon.cancel(); this.table.end(); }
}

/** The same thing again is one row: when last, when first, how often. */
function gathered(events) {
  const by = new Map();
  for (const event of events) {
    const key = JSON.stringify([event.PluginID, event.Host, event.Role, event.Kind, event.From, event.To, event.Reason.Text]);
    const row = by.get(key);
    if (row) [row.times, row.first] = [row.times + 1, event.At];
    else by.set(key, { ...event, key, times: 1, first: event.At });
  }
  return [...by.values()];
}

// Help ---------------------------------------------------------------------------------------------------------------------

/** `docs/unhealthy.md`, drawn: as much of Markdown as it uses. */
export class Help {
  title = 'Why is my driver unhealthy?';

  constructor(route) {
    this.route = route;
    this.element = h('div', { class: 'view prose' });
    this.update({});
  }

  update(change) {
    if (this.drawn === guide.text && !change?.route) return;
    this.drawn = guide.text;
    put(this.element, markdown(guide.text));
    this.element.querySelector(`[data-row="${CSS.escape(this.route.name ?? '')}"]`)?.classList.add('at');
  }

  end() {}
}

function markdown(text) {
  const blocks = [];
  let list = null;
  let rows = null;
  let code = null;
  // What a paragraph says may go on over lines, also in the middle of something.
  let open = null;
  const inline = (text) => text.split(/(\*\*.+?\*\*|`[^`]+`)/).map((part) => {
    if (part.startsWith('**')) return h('strong', null, inline(part.slice(2, -2)));
    return part.startsWith('`') ? h('code', null, part.slice(1, -1)) : part;
  });
  const close = () => { if (open) put(open.element, inline(open.lines.join(' '))); open = null; };
  const begin = (element, line) => { close(); open = { element, lines: [line] }; return element; };
  for (const line of text.split('\n')) {
    const heading = /^(#+) (.*)/.exec(line);
    if (line.startsWith('```')) {
      close();
      if (code) { blocks.push(h('pre', { tabindex: 0 }, code.join('\n'))); code = null; } else code = [];
      [list, rows] = [null, null];
    } else if (code) {
      code.push(line);
    } else if (line.startsWith('|')) {
      close();
      const cells = line.split('|').slice(1, -1).map((cell) => cell.trim());
      if (!rows) {
        rows = h('tbody');
        blocks.push(h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': cells[0] }, h('table', null, h('thead', null, h('tr', null, cells.map((cell) => h('th', { scope: 'col' }, inline(cell))))), rows)));
      } else if (!/^-+$/.test(cells[0])) {
        rows.append(h('tr', { 'data-row': cells[0].replaceAll('`', '') }, cells.map((cell) => h('td', null, inline(cell)))));
      }
    } else if (heading) {
      close();
      [list, rows] = [null, null];
      blocks.push(h(`h${heading[1].length}`, null, inline(heading[2])));
    } else if (line.startsWith('- ')) {
      if (!list) blocks.push(list = h('ul'));
      list.append(begin(h('li'), line.slice(2)));
    } else if (line.trim() === '') {
      close();
      [list, rows] = [null, null];
    } else if (open) {
      open.lines.push(line.trim());
    } else {
      blocks.push(begin(h('p'), line));
    }
  }
  close();
  return blocks;
}
