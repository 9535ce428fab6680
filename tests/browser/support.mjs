// What the checks stand on: gateways as processes, a proxy that can do what proxies do, a browser that is watched.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';

const modules = createRequire(`${process.env.CSI_GATEWAY_BROWSER_MODULES ?? path.join(import.meta.dirname, 'node_modules')}/`);
const puppeteer = modules('puppeteer-core');
const axeSource = fs.readFileSync(modules.resolve('axe-core/axe.min.js'), 'utf8');

export const binary = path.resolve(process.argv[2] ?? 'target/debug/csi-gateway');
export const shots = process.argv[3] && path.resolve(process.argv[3]);
export const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'gw-page-'));
// Only processes that this run started are ever ended.
const children = new Set();
export const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export function assert(is, text) {
  if (!is) throw new Error(text);
}

export function equal(found, wanted, what) {
  assert(JSON.stringify(found) === JSON.stringify(wanted), `${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

/** Waits for a value, not for time. */
export async function until(what, ask, limit = 20_000) {
  const end = performance.now() + limit;
  let last;
  for (;;) {
    try { last = await ask(); if (last) return last; } catch (error) { last = error; }
    if (performance.now() > end) throw new Error(`not within ${limit} ms: ${what}; last: ${last}`);
    await wait(10);
  }
}

/** A process of ours, once it has said `ready`. */
export class Process {
  static async start(args, ready = /listening on (http\S+)/, env = {}) {
    const self = new Process();
    self.child = spawn(binary, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(self.child);
    self.said = '';
    self.gone = new Promise((resolve) => self.child.once('exit', () => { children.delete(self.child); resolve(); }));
    const read = (data) => { self.said = (self.said + data).slice(-20_000); };
    self.child.stdout.on('data', read);
    self.child.stderr.on('data', read);
    if (ready) [, self.address] = await until(`${args[0]} says ${ready}`, () => ready.exec(self.said) ?? (self.child.exitCode !== null ? Promise.reject(new Error(self.said)) : null), 60_000).then((match) => match);
    return self;
  }

  async end(signal = 'SIGTERM') { this.child.kill(signal); await this.gone; }
}

export const demo = (...args) => Process.start(['demo', '--http-endpoint=127.0.0.1:0', ...args]);
export const serve = (port, ...args) => Process.start(['serve', `--http-endpoint=127.0.0.1:${port}`, '--host-id=host-under-test', '--poll-interval=1s', ...args]);

export const json = async (url, headers = {}) => (await fetch(url, { headers })).json();

/** A reverse proxy: under a prefix, counting streams, putting other words in place of some, passing on only what is whole,
 * or keeping answers to some paths back and counting how many wait for them. */
export async function proxy(target, { prefix = '', words = {}, isWhole = false, slow = null, delay = 0 } = {}) {
  const { hostname, port } = new URL(target);
  const state = { streams: 0, most: 0, strays: [], waiting: 0, mostWaiting: 0, delayed: 0, kept: 0 };
  const asked = (url) => Object.entries(words).reduce((text, [real, shown]) => text.replaceAll(encodeURIComponent(shown), encodeURIComponent(real)), url);
  const told = (text) => Object.entries(words).reduce((text, [real, shown]) => text.replaceAll(real, JSON.stringify(shown).slice(1, -1)), text);
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(`${prefix}/`)) {
      state.strays.push(request.url);
      response.writeHead(404).end();
      return;
    }
    const isStream = request.url.includes('/stream');
    if (isStream) {
      state.streams += 1;
      state.most = Math.max(state.most, state.streams);
      response.once('close', () => { state.streams -= 1; });
    }
    const isSlow = slow?.test(request.url);
    if (isSlow) {
      state.waiting += 1;
      state.delayed += 1;
      state.mostWaiting = Math.max(state.mostWaiting, state.waiting);
      response.once('close', () => { state.waiting -= 1; });
    }
    const isChanged = Object.keys(words).length > 0 && request.url.includes('/v1/');
    const headers = { ...request.headers };
    if (isChanged) delete headers['accept-encoding'];
    const out = http.request({ hostname, port, path: asked(request.url.slice(prefix.length)), method: request.method, headers }, async (answer) => {
      // The answer is as old then as it is late.
      if (isSlow) {
        state.kept += 1;
        await wait(delay);
      }
      if (isWhole && isStream) { answer.resume(); return; }
      if (isChanged) delete answer.headers['content-length'];
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      if (isChanged && isStream) answer.on('data', (data) => response.write(told(String(data)))).on('end', () => response.end());
      else if (isChanged) {
        const parts = [];
        answer.on('data', (data) => parts.push(data)).on('end', () => response.end(told(Buffer.concat(parts).toString())));
      } else answer.pipe(response);
      response.once('close', () => answer.destroy());
    });
    out.on('error', () => response.headersSent ? response.destroy() : response.writeHead(502).end());
    request.pipe(out);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.address = `http://127.0.0.1:${server.address().port}${prefix}`;
  state.end = () => { server.closeAllConnections(); server.close(); };
  return state;
}

let browser;
// Tabs of the check that runs.
const watched = [];

export async function launch() {
  const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((one) => fs.existsSync(one));
  assert(executablePath, 'there is no Chromium');
  browser = await puppeteer.launch({
    executablePath, protocolTimeout: 240_000,
    // Nothing but this machine can be reached, whatever a page might try.
    args: ['--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--js-flags=--expose-gc', '--enable-precise-memory-info', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
  return browser.version();
}

export const SIZES = { wide: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

/** A tab that is watched: what it complains of, and whom it asks. `context`: tabs of one context share a worker. */
export async function tab(url, { context, size = 'wide', theme = 'light', mayFail = false } = {}) {
  const own = context ?? await browser.createBrowserContext();
  const page = await own.newPage();
  page.complaints = [];
  watched.push(page);
  page.origin = new URL(url).origin;
  page.on('console', (message) => {
    const isNetwork = /Failed to load resource/.test(message.text());
    if (['error', 'warn', 'warning'].includes(message.type()) && !(mayFail && isNetwork)) page.complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => page.complaints.push(`uncaught: ${error.stack}`));
  page.on('dialog', (dialog) => { page.complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => { if (!request.url().startsWith(page.origin)) page.complaints.push(`asked elsewhere: ${request.url()}`); });
  await page.setViewport(SIZES[size]);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }]);
  await page.goto(url);
  page.text = () => page.evaluate(() => document.body.innerText);
  page.has = (text, limit) => until(`the page says ${text}`, async () => { const all = await page.text(); return (text instanceof RegExp ? text.test(all) : all.includes(text)) || Promise.reject(new Error(all)); }, limit);
  page.leave = async () => {
    equal(page.complaints, [], `complaints at ${url}`);
    if (context) await page.close();
    else await own.close();
  };
  return page;
}

export const context = () => browser.createBrowserContext();

/** What axe finds. */
export async function axe(page) {
  await page.evaluate(axeSource);
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} (${(node.any[0] ?? node.all[0] ?? node.none[0])?.message})`).join(' | ')}`);
  });
  equal(violations, [], `axe at ${page.url()}`);
}

/** A picture of all of a page: it draws only what can be seen, so the screen is made as long as it. */
export async function shot(page, name) {
  if (!shots) return;
  fs.mkdirSync(shots, { recursive: true });
  const before = page.viewport();
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewport({ ...before, height: Math.min(4000, Math.max(before.height, height)) });
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await page.screenshot({ path: path.join(shots, `${name}.png`) });
  await page.setViewport(before);
}

/** A picture for `docs/walk.md`, small: only where WALK names a folder. */
export async function picture(page, name, height = 640) {
  if (!process.env.WALK) return;
  const before = page.viewport();
  await page.setViewport({ ...before, height });
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await page.screenshot({ path: path.join(process.env.WALK, `${name}.webp`), type: 'webp', quality: 55 });
  await page.setViewport(before);
}

// Checks -------------------------------------------------------------------------------------------------------------------

const checks = [];
export const check = (name, run) => checks.push({ name, run });

export async function runAll() {
  const only = process.env.ONLY && new RegExp(process.env.ONLY);
  const failed = [];
  let count = 0;
  try {
    console.log(await launch());
    for (const { name, run } of checks) {
      if (only && !only.test(name)) continue;
      count += 1;
      const begun = performance.now();
      const ends = [];
      watched.length = 0;
      try {
        const measured = await run((end) => ends.push(end));
        console.log(`ok    ${name} (${Math.round(performance.now() - begun)} ms)${measured ? `: ${measured}` : ''}`);
      } catch (error) {
        failed.push(name);
        console.log(`FAILED ${name}: ${error.stack}`);
        for (const page of watched) if (page.complaints.length > 0) console.log(page.complaints);
      }
      for (const end of ends.reverse()) await end();
    }
  } finally {
    await browser?.close();
    for (const child of children) child.kill('SIGTERM');
    fs.rmSync(scratch, { recursive: true, force: true });
  }
  console.log(`${count - failed.length} checks passed, ${failed.length} failed`);
  if (failed.length > 0 || count === 0) process.exit(1);
}
