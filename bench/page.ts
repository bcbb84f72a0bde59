// The page of a run: a chart and a table for each scenario, the goals, and what each server was and was not asked to do. One
// file that needs nothing else.

import { barsOf, escape, STYLE } from './picture.ts'
import { figuresOf, formatFigure, formatValue } from './print.ts'
import type { Results } from './results.ts'
import { type Check, FIGURES, type Figure, type Outcome, goalText, isMet } from './scenario.ts'

/** What a chart shows: the first of these that the scenario has. */
const CHARTED: readonly Figure[] = ['idleConnectionBytes', 'readyMs', 'requestsPerSecond', 'cpuUs']

export function pageOf(results: Results): string {
  const { measuredAt, commit, machine, load, rounds, roundSeconds, missing, servers, scenarios } = results
  const notes = [
    `Weirgate ${commit}, ${measuredAt}, on ${machine}. Load by ${load}.`,
    `Each server has one core, with one worker or thread; the load and the origin have the others. Servers take turns,
     ${rounds} rounds of ${roundSeconds} s each (fewer in some scenarios), after rounds that do not count; figures are medians.`,
    `CPU per request is user and system time of all processes of a server, from /proc, over the requests answered. It holds
     where the machine has other work; requests/s and times do not. "noisy" marks servers whose rounds differ by more than 20 %.`,
    `Before it is measured, each server has to answer what is expected, and the lines of its log are counted ("logged": per
     request; 1 is all of them). All logs are files on the same disk. Connections of clients are taken as long as each server's defaults have it.`,
    `Limits are counted for each request and are never reached.`,
    ...(missing.length > 0 ? [`Not installed, so left out: ${missing.join(', ')}.`] : []),
  ]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Weirgate: figures</title>
<style>${STYLE}
  :root { color-scheme: light dark }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
  section { margin: 2.5rem 0 } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
  th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
  th:first-child, td:first-child { text-align: left; padding-left: 0 } .missed { color: #c62828 } .met { color: #2e7d32 }
  .wide { overflow-x: auto }
</style>
<h1>Weirgate: figures</h1>
${Object.entries(scenarios).map(sectionOf).join('\n')}
<section><h2>How it was measured</h2>
${notes.map((note) => `<p>${escape(note)}</p>`).join('\n')}
<table><tr><th>server<th>version<th>does</tr>
${Object.entries(servers)
  .map(([name, { version, does }]) => `<tr><td>${escape(name)}<td>${escape(version)}<td>${escape(does)}</tr>`)
  .join('\n')}
</table></section>
</html>
`
}

function sectionOf([name, outcome]: readonly [string, Outcome & { title: string; loadAverage: number }]): string {
  const { title, loadAverage, rows, checks } = outcome
  const figures = figuresOf(rows)
  const charted = figures.includes('cpuUs') && rows.every((row) => row.figures.cpuUs !== undefined) ? 'cpuUs' : null
  const chart = charted ?? CHARTED.find((figure) => figures.includes(figure))
  const head = ['server', ...figures.map((figure) => FIGURES[figure].title), '']
  const lines = rows.map((row) => [
    row.server,
    ...figures.map((figure) => formatFigure(figure, row.figures[figure])),
    row.noisy ? 'noisy' : '',
  ])
  return `<section><h2>${escape(name)}</h2><p>${escape(title)}; load average ${loadAverage.toFixed(2)}</p>
${chart === undefined ? '' : barsOf(rows, chart)}
<div class="wide"><table><tr>${head.map((cell) => `<th>${escape(cell)}`).join('')}</tr>
${lines.map((line) => `<tr>${line.map((cell) => `<td>${escape(cell)}`).join('')}</tr>`).join('\n')}
</table></div>
${checks.length === 0 ? '' : `<table><tr><th><th>measured<th>goal<th></tr>\n${checks.map(checkRow).join('\n')}\n</table>`}
</section>`
}

function checkRow(check: Check): string {
  const verdict = check.goal === null ? '' : isMet(check) ? 'met' : 'missed'
  return `<tr><td>${escape(check.what)}<td>${formatValue(check.value)}<td>${goalText(check)}<td class="${verdict}">${verdict}</tr>`
}
