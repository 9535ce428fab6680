// Words, icons and formats: how phases, times and capabilities are said.

import { foreign, h, svg, tamed } from './dom.js';

/** The worst first. */
export const PHASES = ['unhealthy', 'stale', 'lost', 'gone', 'starting', 'new', 'healthy'];

// A shape for each, so that none depends on its colour.
const SHAPES = {
  healthy: [['circle', { cx: 8, cy: 8, r: 7, class: 'solid' }], ['path', { d: 'm4.8 8.2 2.2 2.2 4.2-4.6', class: 'cut' }]],
  unhealthy: [['path', { d: 'M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z', class: 'solid' }], ['path', { d: 'm5.4 5.4 5.2 5.2m0-5.2-5.2 5.2', class: 'cut' }]],
  degraded: [['path', { d: 'M8 1.2 15.4 14.4H.6z', class: 'solid' }], ['path', { d: 'M8 5.6v4.2m0 2v.4', class: 'cut' }]],
  starting: [['circle', { cx: 8, cy: 8, r: 6.3, class: 'line' }], ['path', { d: 'M8 4v4.2l2.8 1.8', class: 'line' }]],
  new: [['circle', { cx: 8, cy: 8, r: 6.3, class: 'line' }], ['path', { d: 'M5 8h.1M8 8h.1m2.9 0h.1', class: 'line' }]],
  stale: [['rect', { x: 1.2, y: 1.2, width: 13.6, height: 13.6, rx: 3, class: 'solid' }], ['path', { d: 'M4.6 8h6.8', class: 'cut' }]],
  gone: [['circle', { cx: 8, cy: 8, r: 6.3, class: 'line dashed' }], ['path', { d: 'm3.6 12.4 8.8-8.8', class: 'line' }]],
  lost: [['circle', { cx: 8, cy: 8, r: 7, class: 'solid' }], ['path', { d: 'M5.9 6.2a2.1 2.1 0 1 1 3.2 1.8c-.8.5-1.1.9-1.1 1.6m0 2.2v.3', class: 'cut' }]],
  skew: [['path', { d: 'M2 5.2h9.6L8.8 2.4M14 10.8H4.4l2.8 2.8', class: 'line' }]],
};

/** An icon; the word stands beside it, so it says nothing to a reader of screens. */
export function icon(name) {
  const shapes = (SHAPES[name] ?? SHAPES.new).map(([tag, properties]) => svg(tag, properties));
  return svg('svg', { viewBox: '0 0 16 16', class: `icon is-${name}`, 'aria-hidden': 'true' }, shapes);
}

/** Icon and word. */
export const chip = (name, word = name) => h('span', { class: `chip is-${name}` }, icon(name), capitalized(word));

export const capitalized = (word) => word.charAt(0).toUpperCase() + word.slice(1);

/** `1 host`, `2 hosts`. */
export const count = (number, word) => `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`;

/** How a plugin is, by the rule of the API's `health` filter. */
export function stateOf(plugin) {
  const healthy = plugin.ControllersHealthy + plugin.NodesHealthy;
  if (healthy === 0) return 'unhealthy';
  return healthy >= plugin.ControllersExpected + plugin.NodesExpected ? 'healthy' : 'degraded';
}

// Time -------------------------------------------------------------------------------------------------------------------

let skew = 0;

/** The gateway's clock and ours may differ; by so many milliseconds. */
export function setSkew(milliseconds) { skew = Math.abs(milliseconds) < 3000 ? 0 : milliseconds; }

export const gatewayNow = () => Date.now() + skew;

/** The time since, in at most two units. */
export function age(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = units.findIndex(([length]) => seconds >= length);
  if (first < 0) return '0 s';
  const [length, name] = units[first];
  const text = `${Math.floor(seconds / length)} ${name}`;
  const next = units[first + 1];
  const rest = next ? Math.floor((seconds % length) / next[0]) : 0;
  return rest > 0 && Math.floor(seconds / length) < 10 ? `${text} ${rest} ${next[1]}` : text;
}

/** The wall clock: the time today, with its day otherwise. */
export function clock(time) {
  const date = new Date(time);
  const hours = date.toLocaleTimeString('en-GB');
  if (date.toDateString() === new Date(gatewayNow()).toDateString()) return hours;
  return `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })}, ${hours}`;
}

/** A time that goes on being right: `how` is `ago`, `for` or `clock`. */
export function when(time, how = 'ago') {
  if (!time) return h('span', { class: 'quiet' }, '–');
  const element = h('time', { datetime: time, title: `${clock(time)} (${time})`, 'data-how': how });
  element.textContent = said(Date.parse(time), how);
  return element;
}

function said(at, how) {
  if (how === 'clock') return clock(at);
  const text = age(gatewayNow() - at);
  return how === 'ago' ? `${text} ago` : text;
}

/** Says every time in the document anew. */
export function tick() {
  for (const element of document.querySelectorAll('time[data-how]')) {
    const text = said(Date.parse(element.dateTime), element.dataset.how);
    if (element.textContent !== text) element.textContent = text;
  }
}

// Reasons and remedies -----------------------------------------------------------------------------------------------------

/** Rows of `docs/unhealthy.md`: what is documented is what is shown here. */
export const guide = { text: '', phases: new Map(), reasons: [] };

export function readGuide(text) {
  guide.text = text;
  guide.phases.clear();
  guide.reasons.length = 0;
  let heading = '';
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) { heading = ''; continue; }
    const cells = line.split('|').slice(1, -1).map((cell) => cell.trim());
    if (heading === '') { heading = cells[0]; continue; }
    if (/^-+$/.test(cells[0])) continue;
    const plain = cells.map((cell) => cell.replaceAll('`', ''));
    if (heading === 'Phase') guide.phases.set(plain[0], { seen: plain[1], causes: plain[2], remedy: plain[3] });
    if (heading === 'Reason') {
      const patterns = [...cells[0].matchAll(/[`"]([^`"]+)[`"]/g)].map((match) => match[1].toLowerCase().split('…').map((part) => part.trim()));
      guide.reasons.push({ patterns, causes: plain[1], remedy: plain[2] });
    }
  }
}

/** What the guide says of an instance: the row of its reason, else that of its phase. */
export function advice(instance) {
  // The description has gRPC's code in it, which is Unavailable for a file without rights, too.
  const reason = (instance.Reason.Text || instance.Reason.Description).toLowerCase();
  const has = (pattern) => {
    let at = 0;
    return pattern.every((part) => { const found = reason.indexOf(part, at); at = found + part.length; return found >= 0; });
  };
  const row = ['unhealthy', 'new', 'gone'].includes(instance.Phase) && guide.reasons.find((row) => row.patterns.some(has));
  const phase = guide.phases.get(instance.Phase);
  return row || (phase && phase.remedy !== 'below' ? phase : undefined);
}

/** Why an instance is as it is, in a sentence. */
export function reasonOf(instance) {
  const { Text: text, Description: description } = instance.Reason;
  if (text) return text;
  if (instance.Phase === 'healthy') return 'Everything that was asked was answered';
  // A bare word says less than what was seen.
  const seen = guide.phases.get(instance.Phase)?.seen;
  return seen && (!description || /^(un)?healthy$/.test(description)) ? seen : description;
}

/** What happened, in a sentence. */
export function eventText(event) {
  const side = (side) => (side === null ? 'none' : typeof side === 'string' ? side || 'none' : topologyText(side) || 'none');
  const arrow = `${side(event.From)} → ${side(event.To)}`;
  switch (event.Kind) {
    case 'appeared': return `appeared, ${side(event.To)}`;
    case 'phase': return arrow;
    case 'reason': return 'same phase, another reason';
    case 'retired': return 'retired: no longer known';
    case 'capabilities': {
      const parts = [];
      if (event.Gained?.length) parts.push(`gained ${event.Gained.join(', ')}`);
      if (event.Lost?.length) parts.push(`lost ${event.Lost.join(', ')}`);
      return `capabilities: ${parts.join('; ')}`;
    }
    default: return `${event.Kind}: ${arrow}`;
  }
}

export function topologyText(topology) {
  return Object.entries(topology?.Segments ?? {}).map(([key, value]) => `${key.split('/').pop()}=${value}`).join(', ');
}

/** Healthy of expected; nothing of nothing is a dash. */
export function ratio(healthy, expected, none = '–') {
  if (healthy === 0 && expected === 0) return h('span', { class: 'quiet' }, none);
  const is = healthy >= expected ? 'healthy' : healthy === 0 ? 'unhealthy' : 'degraded';
  const bar = svg('svg', { class: `bar is-${is}`, viewBox: '0 0 40 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { width: 40, height: 6, rx: 3, class: 'rest' }),
    svg('rect', { width: expected ? Math.min(40, (40 * healthy) / expected) : 40, height: 6, rx: 3, class: 'part' }));
  return h('span', { class: 'ratio' }, h('b', null, `${healthy}/${expected}`), bar);
}

export const controllers = (plugin) =>
  ratio(plugin.ControllersHealthy, plugin.ControllersExpected, plugin.ControllerRequired ? '–' : 'Node only');
export const nodes = (plugin) => ratio(plugin.NodesHealthy, plugin.NodesExpected);

/** The version, and whether others run beside it. */
export function version(plugin) {
  const others = Object.keys(plugin.Versions).length - 1;
  return [foreign(plugin.Version || '–', { class: 'version' }),
    others > 0 && h('span', { class: 'chip is-skew', title: Object.entries(plugin.Versions).map(([name, number]) => `${tamed(name)}: ${number}`).join('\n') }, icon('skew'), `${others + 1} versions`)];
}

// Capabilities of CSI, by service; what each is good for. A test holds the names to those of the gateway.
export const CAPABILITIES = [
  ['VolumeExpansion', 'Expand volumes', {
    ONLINE: 'while they are in use', OFFLINE: 'while they are not in use',
  }],
  ['Plugin', 'Services', {
    CONTROLLER_SERVICE: 'has a controller', VOLUME_ACCESSIBILITY_CONSTRAINTS: 'volumes are reached from some places only (topology)',
    GROUP_CONTROLLER_SERVICE: 'has a group controller', SNAPSHOT_METADATA_SERVICE: 'tells which blocks changed between snapshots',
  }],
  ['Controller', 'Controller', {
    CREATE_DELETE_VOLUME: 'creates and deletes volumes', PUBLISH_UNPUBLISH_VOLUME: 'attaches and detaches volumes',
    LIST_VOLUMES: 'lists volumes', GET_CAPACITY: 'says how much room is left', CREATE_DELETE_SNAPSHOT: 'takes and deletes snapshots',
    LIST_SNAPSHOTS: 'lists snapshots', CLONE_VOLUME: 'clones volumes', PUBLISH_READONLY: 'attaches read-only',
    EXPAND_VOLUME: 'expands volumes in the back end', LIST_VOLUMES_PUBLISHED_NODES: 'says where volumes are attached',
    VOLUME_CONDITION: 'says how volumes are', GET_VOLUME: 'reads one volume',
    SINGLE_NODE_MULTI_WRITER: 'tells writers of one node apart', MODIFY_VOLUME: 'changes parameters of a volume', GET_SNAPSHOT: 'reads one snapshot',
  }],
  ['Node', 'Node', {
    STAGE_UNSTAGE_VOLUME: 'mounts a volume once per node first', GET_VOLUME_STATS: 'says how full volumes are',
    EXPAND_VOLUME: 'expands file systems', VOLUME_CONDITION: 'says how mounted volumes are',
    SINGLE_NODE_MULTI_WRITER: 'tells writers of one node apart', VOLUME_MOUNT_GROUP: 'mounts for a group of users',
  }],
  ['GroupController', 'Group controller', {
    CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT: 'takes snapshots of several volumes at once',
  }],
];
