// How instances were, over time: a lane each, drawn from their transitions.

import { age, capitalized, clock, gatewayNow } from './words.js';
import { foreign, h, put, svg, tamed } from './dom.js';

const SPANS = [['5 min', 300], ['15 min', 900], ['1 h', 3600], ['6 h', 21_600], ['24 h', 86_400], ['7 d', 604_800], ['30 d', 2_592_000]];
const LANES = 24;
// Of those that never changed, a few stand for all.
const STILL = 4;
const WIDTH = 1000;

/** Phases of an instance as `{ phase, from, to, reason }`, the oldest first, from transitions, the newest first. */
export function phasesOf(transitions, instance, now) {
  const parts = [];
  let end = now;
  for (const one of transitions) {
    if (!['appeared', 'phase', 'retired'].includes(one.Kind)) continue;
    const at = Date.parse(one.At);
    if (one.Kind !== 'retired') parts.push({ phase: one.To, from: at, to: end, reason: one.Reason });
    end = at;
  }
  const oldest = transitions.findLast((one) => one.Kind === 'phase' || one.Kind === 'appeared');
  // The ring has dropped what was before; that it was in this phase is known, since when is not.
  if (oldest?.Kind === 'phase') parts.push({ phase: oldest.From, from: -Infinity, to: end });
  if (parts.length === 0 && instance) parts.push({ phase: instance.Phase, from: Date.parse(instance.Since), to: now, reason: instance.Reason });
  return parts.reverse();
}

/** A drawing of lanes: `{ name, parts }`. `span` is in seconds. */
function drawing(lanes, span, now) {
  const start = now - span * 1000;
  const x = (time) => Math.max(0, Math.min(WIDTH, ((time - start) / (span * 1000)) * WIDTH));
  return lanes.map(({ name, parts, href }) => {
    const shown = parts.filter((part) => part.to > start);
    const words = shown.map((part) => `${part.phase} ${part.from < start ? '' : `from ${clock(part.from)}`}`).join(', ');
    const lane = svg('svg', { class: 'lane', viewBox: `0 0 ${WIDTH} 18`, preserveAspectRatio: 'none', role: 'img', 'aria-label': tamed(`${name}: ${words || 'not known then'}`) },
      svg('rect', { width: WIDTH, height: 18, class: 'floor' }),
      shown.map((part) => {
        const [from, to] = [x(part.from), x(part.to)];
        const text = `${capitalized(part.phase)}, ${part.from === -Infinity ? 'until' : `${clock(part.from)} to`} ${part.to >= now ? 'now' : clock(part.to)}${part.from === -Infinity ? '' : ` (${age(part.to - part.from)})`}${part.reason?.Text ? `\n${part.reason.Text}` : ''}`;
        return svg('rect', { x: from, width: Math.max(2, to - from), height: 18, class: `part is-${part.phase}` }, svg('title', null, tamed(text)));
      }));
    return h('div', { class: 'lanerow' }, h('a', { href, class: 'lanename' }, foreign(name)), lane);
  });
}

/** A timeline that is told its lanes anew with `show`. */
export class Timeline {
  constructor(onspan) {
    this.spans = h('div', { class: 'segments', role: 'group', 'aria-label': 'How far back' },
      SPANS.map(([label, seconds]) => h('button', { type: 'button', 'data-span': seconds, 'aria-pressed': 'false', onclick: () => { this.span = seconds; this.isChosen = true; onspan(); } }, label)));
    this.lanes = h('div', { class: 'lanes' });
    this.axis = h('div', { class: 'axis', 'aria-hidden': 'true' });
    this.more = h('p', { class: 'quiet small' });
    this.legend = h('p', { class: 'legend', 'aria-hidden': 'true' });
    this.element = h('section', { class: 'card', 'aria-labelledby': 'timeline' },
      h('div', { class: 'cardhead' }, h('h2', { id: 'timeline' }, 'Timeline'), this.spans), this.lanes, this.axis, this.legend, this.more);
  }

  show(lanes) {
    const now = gatewayNow();
    if (!this.isChosen) {
      // As far back as something happened, at first.
      const changes = lanes.flatMap((lane) => lane.parts.map((part) => part.from)).filter((time) => Number.isFinite(time));
      const oldest = changes.length ? (now - Math.min(...changes)) / 1000 : 0;
      this.span = (SPANS.find(([, seconds]) => seconds >= oldest) ?? SPANS.at(-1))[1];
    }
    for (const button of this.spans.children) button.setAttribute('aria-pressed', String(Number(button.dataset.span) === this.span));
    let still = 0;
    const shown = lanes.filter(({ parts }) => parts.length > 1 || parts[0]?.phase !== 'healthy' || (still += 1) <= STILL).slice(0, LANES);
    put(this.lanes, drawing(shown, this.span, now));
    put(this.axis, h('span', null, `${age(this.span * 1000)} ago`), h('span', null, age(this.span * 500), ' ago'), h('span', null, 'now'));
    const phases = [...new Set(lanes.flatMap((lane) => lane.parts.map((part) => part.phase)))];
    put(this.legend, phases.map((phase) => h('span', null, svg('svg', { viewBox: '0 0 18 10', class: 'key' }, svg('rect', { width: 18, height: 10, class: `part is-${phase}` })), phase)));
    this.more.hidden = shown.length === lanes.length;
    const rest = lanes.length - shown.length;
    this.more.textContent = shown.length < LANES ? `And ${rest} more that did not change.` : `And ${rest} more, which are less ill or changed less.`;
  }
}
