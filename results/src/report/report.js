'use strict';
// Filters, the kernel switch and arrow keys. Without scripts the page shows everything, and every link works.
(() => {
  const get = id => document.getElementById(id);
  const form = document.querySelector('.filters');
  const kernel = get('kernel'), scenario = get('scenario'), show = get('show'), shown = get('shown');
  const gaps = new Set(['inconclusive', 'unsupported', 'skipped', 'error']);
  const wanted = {
    '': () => true,
    unexpected: a => a.classList.contains('m-unexpected'),
    violation: a => a.dataset.v !== 'safe' && !gaps.has(a.dataset.v),
    gap: a => gaps.has(a.dataset.v),
  };
  const apply = () => {
    const name = scenario.value.trim().toLowerCase(), want = wanted[show.value];
    let count = 0;
    for (const part of document.querySelectorAll('section.kernel')) {
      part.hidden = Boolean(kernel && kernel.value !== '' && part.dataset.kernel !== kernel.value);
      for (const row of part.querySelectorAll('tbody tr')) {
        let any = false;
        for (const a of row.querySelectorAll('a')) {
          const yes = want(a);
          a.parentNode.classList.toggle('dim', !yes);
          any = any || yes;
        }
        row.hidden = !row.dataset.scenario.toLowerCase().includes(name) || !any;
        if (!row.hidden && !part.hidden) count += row.querySelectorAll('td:not(.dim) a').length;
      }
    }
    shown.textContent = count + (count === 1 ? ' square' : ' squares');
  };
  // report.html?kernel=0&scenario=fault&show=unexpected: a filter that can be sent to somebody.
  const asked = new URLSearchParams(location.search);
  for (const [input, name] of [[kernel, 'kernel'], [scenario, 'scenario'], [show, 'show']]) {
    const value = asked.get(name);
    if (input && value !== null) input.value = value;
    if (input && input.selectedIndex === -1) input.selectedIndex = 0;
  }
  form.hidden = false;
  for (const input of [kernel, scenario, show]) if (input) input.addEventListener('input', apply);
  apply();

  const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  document.addEventListener('keydown', event => {
    const step = steps[event.key], square = event.target.closest && event.target.closest('.matrix td a');
    if (event.key === 'Escape' && location.hash.startsWith('#cell-')) {
      location.hash = '#square-' + location.hash.slice(6);
    }
    if (!step || !square) return;
    const table = square.closest('table');
    let row = square.closest('tr').rowIndex, column = square.parentNode.cellIndex;
    for (;;) {
      row += step[0]; column += step[1];
      const line = table.rows[row], cell = line && line.cells[column];
      if (!cell || cell.tagName !== 'TD') break;
      const next = !line.hidden && cell.querySelector('a');
      if (next) { next.focus(); break; }
    }
    event.preventDefault();
  });

  // The part that a link opens gets the focus, so that a screen reader reads on there.
  const follow = () => {
    const id = location.hash.slice(1), part = id && get(id);
    if (!part) return;
    if (id.startsWith('square-')) {
      const of = part.closest('section.kernel');
      if (of.hidden && kernel) { kernel.value = of.dataset.kernel; apply(); }
    }
    part.focus();
  };
  addEventListener('hashchange', follow);
  addEventListener('load', () => { document.documentElement.dataset.loadedMs = Math.ceil(performance.now()); });
  follow();
})();
