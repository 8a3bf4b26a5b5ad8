// The server's page: polls /metrics and the model list once a second, draws them, sends photos and scans.
// Nothing from the server ever becomes markup: text goes through textContent only.
'use strict';
(() => {
  const POLL_MS = 1000, KEEP = 121, LATENCY_LOOKS = 5, MINUTE_LOOKS = 60, MAX_ANSWERS = 12;
  const $ = (id) => document.getElementById(id);
  let token = '';  // in memory only

  // ---- asking the server ----
  class Refused extends Error {
    constructor(status, message) { super(message); this.status = status; }
  }
  async function ask(path, options = {}) {
    const headers = { ...(options.headers || {}) };
    if (token) headers.Authorization = 'Bearer ' + token;
    const answer = await fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' });
    if (answer.ok) return answer;
    let message = 'the server answered ' + answer.status;
    try { message = String((await answer.json()).error || message); } catch { /* no JSON: the status says it */ }
    throw new Refused(answer.status, message);
  }
  const askJson = async (path, options) => (await ask(path, options)).json();

  // ---- elements ----
  function element(tag, text, className) {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (className) e.className = className;
    return e;
  }
  // Sets text only where it changed, so that screen readers and selections are left alone.
  function say(e, text) { if (e.textContent !== text) e.textContent = text; }
  function number(v, digits = 3) {
    if (v === 0) return '0';
    if (Math.abs(v) >= 1000) return Math.round(v).toLocaleString('en');
    return String(Number(v.toPrecision(digits)));
  }
  const seconds = (s) => s >= 1 ? number(s) + ' s' : s >= 1e-3 ? number(s * 1e3) + ' ms' : number(s * 1e6) + ' µs';
  const bytes = (b) => b >= 1 << 30 ? number(b / (1 << 30)) + ' GiB' : number(b / (1 << 20)) + ' MiB';

  // ---- metrics ----
  const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/, LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
  function parseMetrics(text) {
    const found = new Map();
    for (const line of text.split('\n')) {
      const m = line[0] === '#' ? null : SAMPLE.exec(line);
      if (!m) continue;
      const labels = {};
      for (const l of (m[2] || '').matchAll(LABEL)) labels[l[1]] = l[2].replace(/\\(.)/g, (_, c) => c === 'n' ? '\n' : c);
      if (!found.has(m[1])) found.set(m[1], []);
      found.get(m[1]).push({ labels, value: m[3] === '+Inf' ? Infinity : Number(m[3]) });
    }
    return found;
  }
  // null where there is no such figure: never 0.
  function total(metrics, name) {
    const rows = metrics.get(name);
    return rows ? rows.reduce((sum, r) => sum + r.value, 0) : null;
  }
  function buckets(metrics, name) {
    const out = new Map();
    for (const { labels, value } of metrics.get(name + '_bucket') || []) {
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      out.set(bound, (out.get(bound) || 0) + value);
    }
    return out;
  }
  // As Prometheus' histogram_quantile; null where nothing came between the two looks.
  function quantile(q, before, after) {
    let below = 0, bound = 0;
    const all = (after.get(Infinity) || 0) - (before.get(Infinity) || 0);
    if (!(all > 0)) return null;
    for (const le of [...after.keys()].sort((x, y) => x - y)) {
      const n = Math.max(below, after.get(le) - (before.get(le) || 0));
      if (n >= q * all) return le === Infinity ? bound : bound + (le - bound) * (q * all - below) / Math.max(n - below, 1e-9);
      below = n;
      bound = le;
    }
    return bound;
  }

  const looks = [];
  function look(metrics) {
    const power = [total(metrics, 'nv_gpu_power_usage'), total(metrics, 'isoline_cpu_package_power_watts')].filter((w) => w !== null);
    const failed = total(metrics, 'nv_inference_request_failure');
    looks.push({
      t: performance.now() / 1000, inferences: total(metrics, 'isoline_serving_inferences_total') || 0, failed,
      latency: buckets(metrics, 'isoline_inference_request_duration_seconds'),
      batches: total(metrics, 'isoline_inference_batch_size_count') || 0, samples: total(metrics, 'isoline_inference_batch_size_sum') || 0,
      waiting: total(metrics, 'nv_inference_pending_request_count'), running: total(metrics, 'isoline_running_executions'),
      watts: power.length ? power.reduce((a, b) => a + b) : null, joules: total(metrics, 'isoline_joules_per_inference'),
      rss: total(metrics, 'process_resident_memory_bytes'), cpu: total(metrics, 'process_cpu_seconds_total'),
      sources: metrics.get('isoline_energy_source_available') || [],
    });
    if (looks.length > KEEP) looks.shift();
  }
  const back = (i, n) => looks[Math.max(0, i - n)];

  // ---- charts ----
  const SVG = 'http://www.w3.org/2000/svg';
  function niceTop(v) {
    if (!(v > 0)) return 1;
    const p = 10 ** Math.floor(Math.log10(v));
    return [1, 2, 5, 10].map((m) => m * p).find((m) => m >= v);
  }
  function draw(id, series, format) {
    const plot = $(id).querySelector('.plot');
    if (!plot.firstChild) {
      const svg = document.createElementNS(SVG, 'svg');
      svg.setAttribute('viewBox', '0 0 240 84');
      svg.setAttribute('preserveAspectRatio', 'none');
      svg.setAttribute('aria-hidden', 'true');
      for (const name of ['a', 'b'].slice(0, series.length)) svg.appendChild(document.createElementNS(SVG, 'path')).setAttribute('class', name);
      plot.append(svg, element('span', '', 'top'));
    }
    const known = series.flat().filter((v) => v !== null);
    const top = niceTop(Math.max(0, ...known));
    say(plot.querySelector('.top'), known.length ? format(top) : '');
    series.forEach((values, s) => {
      let d = '', pen = false;
      values.forEach((v, i) => {
        const x = 240 - (values.length - 1 - i) * 240 / (KEEP - 1);
        if (v !== null) d += (pen ? 'L' : 'M') + x.toFixed(2) + ' ' + (82 - 80 * v / top).toFixed(2);
        pen = v !== null;
      });
      plot.querySelectorAll('path')[s].setAttribute('d', d);
    });
  }
  function show(id, text) { say($(id).querySelector('output'), text); }

  function drawAll() {
    const last = looks.length - 1, now = looks[last];
    const rate = looks.map((l, i) => i ? Math.max(0, l.inferences - looks[i - 1].inferences) / (l.t - looks[i - 1].t) : null);
    draw('chart-throughput', [rate], number);
    show('chart-throughput', rate[last] === null ? '–' : number(rate[last]) + '/s');

    const of = (q) => looks.map((l, i) => i ? quantile(q, back(i, LATENCY_LOOKS).latency, l.latency) : null);
    const p50 = of(.5), p99 = of(.99);
    draw('chart-latency', [p50, p99], seconds);
    show('chart-latency', p50[last] === null ? 'no requests' : seconds(p50[last]) + ' / ' + seconds(p99[last]));

    draw('chart-queue', [looks.map((l) => l.waiting), looks.map((l) => l.running)], number);
    show('chart-queue', now.waiting === null ? '–' : number(now.waiting) + ' / ' + number(now.running || 0));

    draw('chart-power', [looks.map((l) => l.watts)], (w) => number(w) + ' W');
    show('chart-power', now.watts === null ? 'not available' : number(now.watts) + ' W');
    const why = now.sources.filter((s) => !s.value).map((s) => s.labels.reason).join('; ');
    const read = now.sources.filter((s) => s.value).map((s) => s.labels.device).join(', ');
    say($('power-note'), now.watts === null ? why || 'no source of energy' : read + (why ? ' (not: ' + why + ')' : ''));

    const minute = back(last, MINUTE_LOOKS);
    const batches = now.batches - minute.batches;
    say($('total-inferences'), number(now.inferences));
    say($('total-failures'), now.failed === null ? '–' : number(now.failed));
    say($('mean-batch'), batches > 0 ? number((now.samples - minute.samples) / batches) : 'none ran');
    say($('joules'), now.joules !== null ? number(now.joules) + ' J' : now.watts === null ? 'not available' : 'none ran');
    say($('memory'), now.rss === null ? 'not available' : bytes(now.rss));
    const cores = last && now.cpu !== null ? (now.cpu - back(last, 5).cpu) / (now.t - back(last, 5).t) : null;
    say($('cpu'), cores === null ? '–' : number(cores, 2) + ' cores');
  }

  // ---- models ----
  const platforms = new Map();  // "name/version" -> platform; asked once
  async function platform(m) {
    const key = m.name + '/' + m.version;
    if (m.state !== 'READY') { platforms.delete(key); return ''; }
    if (!platforms.has(key)) {
      try {
        const meta = await askJson('/v2/models/' + encodeURIComponent(m.name) + '/versions/' + encodeURIComponent(m.version));
        platforms.set(key, String(meta.platform || ''));
      } catch (e) {
        if (e.status === 401) throw e;
        platforms.set(key, '');
      }
    }
    return platforms.get(key);
  }
  function options(select, names) {
    if ([...select.options].map((o) => o.value).join('\n') === names.join('\n')) return;
    const chosen = select.value;
    select.replaceChildren(...names.map((n) => { const o = element('option', n); o.value = n; return o; }));
    if (names.includes(chosen)) select.value = chosen;
  }
  let volumeModels = null;  // names; null: this server segments no volumes
  async function showModels(metrics) {
    const index = await askJson('/v2/repository/index', { method: 'POST', body: '{}' });
    const pictures = [];
    const rows = [];
    for (const m of index) {
      const volume = (volumeModels || []).includes(m.name);
      const kind = volume ? 'nnU-Net (scans)' : await platform(m);
      if (kind === 'isoline_image' && !pictures.includes(m.name)) pictures.push(m.name);
      const answered = (metrics.get('nv_inference_request_success') || []).find((r) => r.labels.model === m.name && r.labels.version === m.version);
      const row = element('tr');
      const state = element('td', m.state, m.state === 'READY' ? 'good' : 'bad');
      if (m.reason) state.append(element('div', m.reason, 'quiet'));
      row.append(element('td', m.name), element('td', m.version || ''), element('td', kind), state, element('td', answered ? number(answered.value) : '', 'n'));
      ['', 'version', 'platform', 'state', 'answered'].forEach((label, i) => { if (label) row.cells[i].dataset.label = label; });
      rows.push(row);
    }
    if (!rows.length) {
      const cell = element('td', 'no models', 'quiet');
      cell.colSpan = 5;
      rows.push(element('tr'));
      rows[0].append(cell);
    }
    const body = $('models'), shown = [...body.children];
    if (rows.length !== shown.length || rows.some((r, i) => !r.isEqualNode(shown[i]))) body.replaceChildren(...rows);
    options($('photo-model'), pictures);
    $('photo-file').disabled = !pictures.length;
    if (!pictures.length) say($('photo-note'), 'No image model is served.');
    else if ($('photo-note').textContent === 'No image model is served.') say($('photo-note'), '');
  }

  // ---- the photo ----
  const vectors = new Map();  // model -> {name, values} of the photo before
  function cosine(a, b) {
    let ab = 0, aa = 0, bb = 0;
    for (let i = 0; i < a.length; ++i) { ab += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
    return aa && bb ? ab / Math.sqrt(aa * bb) : null;
  }
  const isDistribution = (v) => v.length > 1 && v.every((x) => x >= 0 && x <= 1) && Math.abs(v.reduce((a, b) => a + b, 0) - 1) < 1e-3;
  function describe(values) {
    if (isDistribution(values)) {
      const order = values.map((p, i) => [p, i]).sort((x, y) => y[0] - x[0]).slice(0, 5);
      return 'top classes: ' + order.map(([p, i]) => i + ' (' + (p * 100).toFixed(1) + ' %)').join(', ');
    }
    return values.length + ' values: ' + values.slice(0, 6).map((v) => typeof v === 'number' ? v.toPrecision(4) : String(v)).join(', ') + (values.length > 6 ? ', …' : '');
  }
  function addAnswer(list, item) {
    list.prepend(item);
    while (list.children.length > MAX_ANSWERS) list.lastChild.remove();
  }
  function thumbnail(file) {
    const image = element('img');
    image.alt = '';
    const url = URL.createObjectURL(file);
    image.onload = image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
    return image;
  }
  async function sendPhoto(file) {
    const model = $('photo-model').value, item = element('li', undefined, 'answer'), text = element('div');
    item.append(thumbnail(file), text);
    text.append(element('div', file.name));
    try {
      const start = performance.now();
      const answer = await askJson('/v2/models/' + encodeURIComponent(model) + '/infer',
        { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
      const took = (performance.now() - start) / 1000;
      text.append(element('div', model + ' answered in ' + seconds(took) + ', sending included', 'quiet'));
      for (const output of answer.outputs || []) {
        const values = output.data || [];
        text.append(element('div', output.name + ' [' + output.shape.join(' × ') + '], ' + describe(values), 'values'));
        const key = model + '/' + output.name, before = vectors.get(key);
        if (before && before.values.length === values.length && !isDistribution(values)) {
          const c = cosine(values, before.values);
          if (c !== null) text.append(element('div', 'cosine with ' + before.name + ': ' + c.toFixed(4), 'cosine'));
        }
        vectors.set(key, { name: file.name, values });
      }
      item.dataset.done = 'yes';
    } catch (e) {
      text.append(element('div', e.message, 'bad'));
      item.dataset.done = 'failed';
      if (e.status === 401) askToken();
    }
    addAnswer($('photo-answers'), item);
  }

  // ---- the scan ----
  const JOBS = '/v1/segmentations', ENDED = ['succeeded', 'failed', 'cancelled'];
  const views = new Map();  // job id -> its list item
  function jobView(job) {
    let view = views.get(job.id);
    if (view) return view;
    view = { item: element('li'), title: element('div'), bar: element('progress'), note: element('div', '', 'quiet'), actions: element('p', undefined, 'row') };
    view.bar.max = 1;
    view.cancel = element('button', 'Cancel');
    view.cancel.type = 'button';
    view.cancel.addEventListener('click', () => act(view, async () => {
      await ask(JOBS + '/' + encodeURIComponent(job.id), { method: 'DELETE' });
    }));
    view.actions.append(view.cancel);
    view.item.append(view.title, view.bar, view.note, view.actions);
    view.item.dataset.job = job.id;
    views.set(job.id, view);
    return view;
  }
  async function act(view, work) {
    try { await work(); } catch (e) { say(view.note, e.message); view.note.className = 'bad'; if (e.status === 401) askToken(); }
  }
  function showJob(job) {
    const view = jobView(job), ended = ENDED.includes(job.status);
    say(view.title, (job.model || '') + ': ' + job.status);
    view.item.dataset.status = job.status;
    view.bar.hidden = ended;
    if (job.status === 'queued') view.bar.removeAttribute('value'); else view.bar.value = job.progress || 0;
    view.bar.setAttribute('aria-label', 'progress of ' + (job.model || 'the job'));
    view.cancel.hidden = ended;
    if (ended && !view.ended) {
      view.ended = true;
      view.note.className = job.status === 'failed' ? 'bad' : 'quiet';
      const took = (Date.parse(job.finished) - Date.parse(job.started)) / 1000;
      say(view.note, job.error ? String(job.error) : Number.isFinite(took) ? 'ran ' + seconds(took) : '');
      if (job.status === 'succeeded') offerResults(view, job);
    } else if (!ended) {
      say(view.note, job.status === 'running' ? Math.round(100 * (job.progress || 0)) + ' %' : 'waits');
    }
    return view;
  }
  function offerResults(view, job) {
    const path = JOBS + '/' + encodeURIComponent(job.id);
    const labels = element('button', 'Labels (.nii.gz)'), picture = element('button', 'Picture');
    labels.type = picture.type = 'button';
    labels.addEventListener('click', () => act(view, async () => {
      const url = URL.createObjectURL(await (await ask(path + '/labels')).blob());
      const link = element('a');
      link.href = url;
      link.download = 'labels-' + job.id + '.nii.gz';
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    }));
    const drawOverlay = () => act(view, async () => {
      const url = URL.createObjectURL(await (await ask(path + '/overlay.png')).blob());
      const image = element('img', undefined, 'overlay');
      image.alt = 'the scan with its labels, job ' + job.id;
      image.onload = () => { URL.revokeObjectURL(url); view.item.dataset.overlay = image.naturalWidth; };
      image.src = url;
      picture.hidden = true;
      view.item.append(image);
    });
    picture.addEventListener('click', drawOverlay);
    view.actions.append(labels, picture);
    if (view.mine) drawOverlay();
  }
  async function showJobs() {
    let said;
    try {
      said = await askJson(JOBS);
    } catch (e) {
      if (e.status !== 404) throw e;
      jobsServed = false;
      $('scan-file').disabled = true;
      return say($('scan-note'), 'This server segments no scans.');
    }
    volumeModels = (said.models || []).map((m) => String(m.name));
    options($('scan-model'), volumeModels);
    $('scan-file').disabled = !volumeModels.length;
    if (!volumeModels.length) say($('scan-note'), 'No model for scans is served.');
    const shown = (said.jobs || []).slice(0, MAX_ANSWERS);
    for (const [id, view] of views) if (!shown.some((j) => j.id === id)) { view.item.remove(); views.delete(id); }
    const items = shown.map((j) => showJob(j).item), list = $('scan-jobs');
    items.forEach((item, i) => { if (list.children[i] !== item) list.insertBefore(item, list.children[i] || null); });
  }
  let jobsServed = true;
  async function sendScan(file) {
    say($('scan-note'), 'sending ' + file.name);
    try {
      const job = await askJson(JOBS + '?model=' + encodeURIComponent($('scan-model').value),
        { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
      jobView(job).mine = true;
      $('scan-jobs').prepend(showJob(job).item);
      say($('scan-note'), file.name + ' was accepted');
    } catch (e) {
      say($('scan-note'), file.name + ': ' + e.message);
      if (e.status === 401) askToken();
    }
  }

  // ---- files, chosen or dropped ----
  function takeFiles(dropId, inputId, send) {
    const drop = $(dropId), input = $(inputId);
    let after = Promise.resolve();
    const take = (files) => { for (const f of files) after = after.then(() => send(f)); };
    input.addEventListener('change', () => { take([...input.files]); input.value = ''; });
    const over = (on) => (e) => { e.preventDefault(); drop.classList.toggle('over', on); };
    drop.addEventListener('dragover', over(true));
    drop.addEventListener('dragleave', over(false));
    drop.addEventListener('drop', (e) => { over(false)(e); if (!input.disabled) take([...e.dataTransfer.files]); });
  }
  takeFiles('photo-drop', 'photo-file', sendPhoto);
  takeFiles('scan-drop', 'scan-file', sendScan);
  // A file that misses its place must not replace the page.
  for (const type of ['dragover', 'drop']) window.addEventListener(type, (e) => e.preventDefault());

  // ---- the token ----
  let waiting = null;  // resolves when a token was given
  function askToken() {
    say($('status'), 'token needed');
    $('token-refused').hidden = !token;
    token = '';
    if ($('token-form').hidden) { $('token-form').hidden = false; $('token').focus(); }
    if (!waiting) { let go; waiting = new Promise((r) => { go = r; }); waiting.go = go; }
    return waiting;
  }
  $('token-form').addEventListener('submit', (e) => {
    e.preventDefault();
    token = $('token').value;
    $('token').value = '';
    if (waiting) { waiting.go(); waiting = null; }
  });

  // ---- once a second ----
  let round = 0;
  async function poll() {
    const metrics = parseMetrics(await (await ask('/metrics')).text());
    $('token-form').hidden = true;
    look(metrics);
    drawAll();
    if (!$('server').textContent) {
      const server = await askJson('/v2');
      say($('server'), server.name + ' ' + server.version);
    }
    if (jobsServed) await showJobs();
    if (round++ % 3 === 0) await showModels(metrics);
    say($('status'), 'serving');
    document.documentElement.dataset.rounds = round;
  }
  async function run() {
    for (;;) {
      try {
        if (!document.hidden) await poll();
      } catch (e) {
        if (e.status === 401) { await askToken(); continue; }
        say($('status'), e instanceof Refused ? e.message : 'not reachable');
      }
      await new Promise((r) => setTimeout(r, POLL_MS));
    }
  }
  run();
})();
