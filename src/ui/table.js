// A table of any length: only the rows that can be seen exist. The page itself scrolls.

import { h, put } from './dom.js';

const MARGIN = 12;
const narrow = matchMedia('(max-width: 760px)');

/**
 * `columns`: `{ name, label, sort }`; `cells(item)`: what is in them; `height`: of a row, wide and narrow, in pixels;
 * `href(item)`: where a row leads; `onsort(name)`. `show(items)` shows them; items that are the same objects are not drawn
 * again.
 */
export class Table {
  constructor({ label, kind, columns, cells, key, href, height = [46, 78], onsort, empty }) {
    Object.assign(this, { columns, cells, key, href, height, onsort, empty, items: [], rows: new Map(), cursor: -1 });
    this.heads = columns.map((column) => h('div', { role: 'columnheader', class: `th c-${column.name}` },
      onsort && column.sort !== false ? h('button', { type: 'button', onclick: () => onsort(column.name) }, column.label) : column.label));
    this.body = h('div', { role: 'rowgroup', class: 'tbody' });
    this.grid = h('div', { role: 'table', 'aria-label': label, class: `table t-${kind}` },
      h('div', { role: 'rowgroup', class: 'thead' }, h('div', { role: 'row', class: 'tr', 'aria-rowindex': 1 }, this.heads)), this.body);
    this.none = h('p', { class: 'none', hidden: true });
    this.element = h('div', { class: 'tablebox' }, this.grid, this.none);
    this.draw = this.draw.bind(this);
    this.again = () => { this.clear(); this.draw(); };
    addEventListener('scroll', this.draw, { passive: true });
    addEventListener('resize', this.draw, { passive: true });
    narrow.addEventListener('change', this.again);
  }

  end() {
    removeEventListener('scroll', this.draw);
    removeEventListener('resize', this.draw);
    narrow.removeEventListener('change', this.again);
  }

  sorted(name, isDown) {
    this.columns.forEach((column, at) => {
      if (column.name === name) this.heads[at].setAttribute('aria-sort', isDown ? 'descending' : 'ascending');
      else this.heads[at].removeAttribute('aria-sort');
    });
  }

  clear() {
    for (const { element } of this.rows.values()) element.remove();
    this.rows.clear();
  }

  show(items) {
    const at = this.cursor >= 0 && this.items[this.cursor] ? this.key(this.items[this.cursor]) : null;
    this.items = items;
    if (at !== null) this.cursor = items.findIndex((item) => this.key(item) === at);
    this.grid.setAttribute('aria-rowcount', items.length + 1);
    this.grid.hidden = items.length === 0;
    this.none.hidden = items.length > 0;
    if (items.length === 0) put(this.none, this.empty?.() ?? 'Nothing here.');
    this.draw();
  }

  get rowHeight() { return this.height[narrow.matches ? 1 : 0]; }

  draw() {
    const height = this.rowHeight;
    this.body.style.height = `${this.items.length * height}px`;
    if (!this.body.isConnected) return;
    const top = -this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((top + innerHeight) / height) + MARGIN);
    const wanted = new Set();
    let before = null;
    for (let at = first; at < last; at += 1) {
      const item = this.items[at];
      const key = this.key(item);
      wanted.add(key);
      let row = this.rows.get(key);
      if (!row || row.item !== item) {
        const element = row?.element ?? h('div', { role: 'row', class: 'tr' });
        const isFocused = element.contains(document.activeElement);
        put(element, this.cells(item).map((cell, column) => h('div', { role: 'cell', class: `td c-${this.columns[column].name}`, 'data-label': this.columns[column].label }, cell)));
        if (isFocused) element.querySelector('a')?.focus({ preventScroll: true });
        row = { element, item, at: -1 };
        this.rows.set(key, row);
      }
      if (row.at !== at) {
        row.at = at;
        row.element.style.transform = `translateY(${at * height}px)`;
        row.element.style.height = `${height}px`;
        row.element.setAttribute('aria-rowindex', at + 2);
      }
      row.element.classList.toggle('at', at === this.cursor);
      // In the order in which they are seen, for whoever hears them or goes from one to the next.
      const place = before ? before.nextSibling : this.body.firstChild;
      if (place !== row.element) this.body.insertBefore(row.element, place);
      before = row.element;
    }
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
  }

  /** Goes so many rows down. */
  move(by) {
    if (this.items.length === 0) return;
    this.cursor = Math.max(0, Math.min(this.items.length - 1, this.cursor + by));
    const height = this.rowHeight;
    const place = this.body.getBoundingClientRect().top + this.cursor * height;
    if (place < 120) scrollBy(0, place - 120);
    else if (place + height > innerHeight - 40) scrollBy(0, place + height - innerHeight + 40);
    this.draw();
    this.rows.get(this.key(this.items[this.cursor]))?.element.querySelector('a')?.focus({ preventScroll: true });
  }

  /** Where the row leads at which the reader is. */
  get target() { return this.items[this.cursor] && this.href?.(this.items[this.cursor]); }
}
