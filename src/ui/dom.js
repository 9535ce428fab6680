// Elements from values. Text becomes text nodes and nothing else: whatever a driver calls itself, it is never markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child);
  }
}

/** An element. Children that are strings become text. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** An element of a drawing. */
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Text that somebody else wrote, in whatever direction: it cannot turn what stands around it. */
export const foreign = (text, properties) => h('bdi', properties, tamed(text));

/** Characters that would be obeyed and not seen are spelt out. */
export function tamed(text) {
  return String(text ?? '').replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** Replaces what is in an element. */
export function put(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

const shownBy = new WeakMap();

/** Replaces what is in an element only where `key` differs from the last one: what the reader opened, marked or reached stays. */
export function keep(element, key, make) {
  const text = JSON.stringify(key);
  if (shownBy.get(element) === text) return;
  shownBy.set(element, text);
  put(element, make());
}

/** A copy to the clipboard; where there is none (plain HTTP), the text is selected for the reader to copy. */
export function copyable(text, label) {
  const code = h('code', { class: 'command' }, tamed(text));
  const button = h('button', {
    type: 'button', class: 'small', 'aria-label': `Copy ${label}`,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = 'Selected';
      }
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    },
  }, 'Copy');
  return h('span', { class: 'copyable' }, code, button);
}

/** Runs a function at once, and then not more often than every `gap` milliseconds (where nobody looks, more seldom); the last
 * call is never lost. */
export function throttled(run, gap) {
  let last = -Infinity;
  let timer = 0;
  const now = () => { timer = 0; last = performance.now(); run(); };
  const ask = () => {
    if (timer) return;
    const rest = last + (document.hidden ? 2 * gap : gap) - performance.now();
    timer = setTimeout(now, Math.max(0, rest));
  };
  ask.cancel = () => { clearTimeout(timer); timer = 0; };
  return ask;
}

/** Asks for something, one request at a time and, where nothing is urgent, seldom: a large or slow answer more seldom.
 * However often it is called meanwhile, it runs once more after that. `run(signal)` deals with its own errors, and does
 * nothing more once it is aborted. */
export function paced(run) {
  let abort = null;
  let timer = 0;
  let isWanted = false;
  let free = 0;
  const go = async () => {
    const mine = abort = new AbortController();
    [timer, isWanted] = [0, false];
    const begun = performance.now();
    await run(mine.signal);
    if (abort !== mine) return;
    abort = null;
    free = begun + Math.max(500, 20 * (performance.now() - begun));
    if (isWanted) ask();
  };
  const ask = () => {
    if (abort) isWanted = true;
    else timer ||= setTimeout(go, Math.max(0, free - performance.now()));
  };
  ask.end = () => {
    abort?.abort();
    clearTimeout(timer);
    [abort, timer] = [null, 0];
  };
  /** At once, whatever is still waited for: an answer that was on its way when the gateway went may never come. */
  ask.anew = () => { ask.end(); go(); };
  return ask;
}
