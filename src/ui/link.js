// One connection to the gateway: what it is, and every change from there on. Runs in a worker that all tabs share, or, where
// a browser has none, in the page. It keeps nothing but the last index; what the changes mean is the store's business.

const FIRST_DELAY = 400;
const LAST_DELAY = 5000;
// How long a stream may take to begin: one that takes longer is held back by something in between that wants it whole.
const PATIENCE = 4000;
// The gateway says something at least every 30 s.
const SILENCE = 75_000;

export class Link {
  constructor(root, token, send) {
    Object.assign(this, { root, token, send, last: { kind: 'connecting' }, index: 0, isOver: false });
    this.run();
  }

  tell(message) {
    if (this.isOver) return;
    if (message.kind !== 'line') this.last = message;
    this.send(message);
  }

  /** What a reader has to know who joins now. */
  standing() {
    return this.last.kind === 'live' ? { ...this.last, index: this.index } : this.last;
  }

  /** Tries at once. */
  retry() { this.wake?.(); }

  end() {
    this.isOver = true;
    this.abort?.abort();
    this.wake?.();
  }

  async run() {
    let delay = FIRST_DELAY;
    let since = null;
    while (!this.isOver) {
      let why = 'the gateway ended the connection';
      this.abort = new AbortController();
      try {
        const gateway = await this.ask('v1/gateway');
        if (gateway.denied) {
          this.tell({ kind: 'denied', text: gateway.denied });
          since = null;
          await this.sleep(30_000);
          continue;
        }
        await this.live(gateway.response);
        [delay, since] = [FIRST_DELAY, null];
        const opening = this.ask(`v1/gateway/stream?index=${this.index}`);
        const stream = await Promise.race([opening, this.sleep(PATIENCE)]);
        if (stream?.denied) continue;
        if (!stream) {
          opening.catch(() => {});
          this.abort.abort();
          this.abort = new AbortController();
          await this.poll();
          continue;
        }
        if (await this.read(stream.response.body.getReader()) === 'behind') continue;
      } catch (error) {
        why = error?.status ? `the gateway answered ${error.status}` : 'the gateway cannot be reached';
      } finally {
        this.abort.abort();
      }
      since ??= Date.now();
      this.tell({ kind: 'down', since, why, next: Date.now() + delay });
      await this.sleep(delay);
      delay = Math.min(delay * 1.6, LAST_DELAY);
    }
  }

  async live(response) {
    const gateway = await response.json();
    this.index = gateway.Index;
    this.tell({ kind: 'live', gateway, index: gateway.Index, date: response.headers.get('date'), at: Date.now() });
  }

  /** Without a stream: waits for each change, and has everything asked for anew. Ends where the right ends. */
  async poll() {
    while (!this.isOver) {
      const before = this.index;
      const gateway = await this.ask(`v1/gateway?index=${before}&wait=20s`);
      if (gateway.denied) return;
      if (Number(gateway.response.headers.get('X-Nomad-Index')) !== before) await this.live(gateway.response);
      await this.sleep(1000);
    }
  }

  async ask(path) {
    const headers = this.token ? { 'X-Nomad-Token': this.token } : {};
    const response = await fetch(this.root + path, { headers, cache: 'no-store', signal: this.abort.signal });
    if (response.status === 401 || response.status === 403) return { denied: await response.text() };
    if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status });
    return { response };
  }

  /** Lines until the end; `behind`: the gateway no longer has what changed meanwhile, and tells everything anew. */
  async read(reader) {
    const decoder = new TextDecoder();
    let rest = '';
    let timer = 0;
    const alive = () => { clearTimeout(timer); timer = setTimeout(() => this.abort.abort(), SILENCE); };
    try {
      for (;;) {
        alive();
        const { done, value } = await reader.read();
        if (done) return 'over';
        const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
        rest = lines.pop();
        for (const text of lines) {
          const line = JSON.parse(text);
          if (line.Index === undefined) continue;
          // What it would tell is everything of every instance; the lists say as much in a tenth of the bytes.
          if (line.Index === 0 || line.IDs) return 'behind';
          this.index = line.Index;
          this.tell({ kind: 'line', line });
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }

  sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => { clearTimeout(timer); resolve(); };
    });
  }
}
