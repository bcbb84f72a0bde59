// Figures as bars, in SVG that stands by itself: light or dark as the reader's screen is.

import type { Results } from './results.ts'
import { FIGURES, type Figure, type Row } from './scenario.ts'
import { formatFigure } from './print.ts'

const ROW_PX = 26
const LABEL_PX = 150
const VALUE_PX = 52
const HEAD_PX = 48
const GAP_PX = 28

/** Of a page and of the picture. */
export const STYLE = `
  .sheet { fill: #ffffff; stroke: #d0d7de } .title { font-weight: 600 } .soft { fill: #59636e }
  text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328 }
  .bar { fill: #b6c2cf } .own { fill: #0a7d6c } .own-text { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .sheet { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .soft { fill: #9198a1 }
    .bar { fill: #4a5563 } .own { fill: #2bb8a0 }
  }`

interface Panel {
  readonly title: string
  readonly subtitle: string
  readonly figure: Figure
  readonly rows: readonly Row[]
}

const WIDTH_PX = 940
const PANEL_PX = (WIDTH_PX - 3 * GAP_PX) / 2

/** The picture of the README, two panels a row. */
export function pictureOf({ scenarios, commit, machine }: Results): string {
  const panels: Panel[] = []
  const add = (name: string, figure: Figure, title: string, subtitle: string): void => {
    const rows = scenarios[name]?.rows
    if (rows !== undefined) panels.push({ title, subtitle, figure, rows })
  }
  add('hit', 'cpuUs', 'Answered from the cache', 'CPU per request, µs; 0.7 KiB of JSON, 64 connections')
  add('miss', 'cpuUs', 'Fetched and stored', 'CPU per request, µs; a new URL each time')
  add('hundred-users', 'requestsPerSecond', '100 users on slow backends', 'requests/s, from an empty cache')
  add('hundred-users', 'meanMs', '100 users on slow backends', 'mean time, ms, first requests included')
  let y = GAP_PX
  const drawn: string[] = []
  for (let i = 0; i < panels.length; i += 2) {
    const row = panels.slice(i, i + 2)
    for (const [column, panel] of row.entries()) {
      const x = GAP_PX + column * (PANEL_PX + GAP_PX)
      drawn.push(`<g transform="translate(${x} ${y})">\n${draw(panel, PANEL_PX)}\n</g>`)
    }
    y += Math.max(...row.map(heightOf)) + GAP_PX
  }
  const heightPx = y + GAP_PX / 2
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH_PX}" height="${heightPx}" viewBox="0 0 ${WIDTH_PX} ${heightPx}" role="img" aria-label="What Weirgate and other servers take for a request">
<style>${STYLE}</style>
<rect class="sheet" x="0.5" y="0.5" width="${WIDTH_PX - 1}" height="${heightPx - 1}" rx="8"/>
${drawn.join('\n')}
<text class="soft" style="font-size: 11px" x="${GAP_PX}" y="${heightPx - 14}">${escape(`Weirgate ${commit}; each server on one core; ${machine}`)}</text>
</svg>
`
}

/** The bars of one scenario, by themselves. */
export function barsOf(rows: readonly Row[], figure: Figure): string {
  const panel = { title: '', subtitle: FIGURES[figure].title, figure, rows }
  const heightPx = heightOf(panel)
  return `<svg width="620" height="${heightPx}" viewBox="0 0 620 ${heightPx}">${draw(panel, 620)}</svg>`
}

const heightOf = ({ rows }: Panel): number => HEAD_PX + rows.length * ROW_PX

function draw({ title, subtitle, figure, rows }: Panel, widthPx: number): string {
  const valueOf = (row: Row): number => row.figures[figure] ?? 0
  const sorted = rows.toSorted((a, b) => valueOf(a) - valueOf(b))
  const largest = Math.max(...rows.map(valueOf))
  const bars = sorted.map((row, i) => {
    const [barPx, y] = [(valueOf(row) / largest) * (widthPx - LABEL_PX - VALUE_PX), HEAD_PX + i * ROW_PX]
    const isOwn = row.server.startsWith('weirgate')
    const text = isOwn ? ' class="own-text"' : ''
    return `<text${text} x="${LABEL_PX - 10}" y="${y + 13}" text-anchor="end">${escape(row.server)}</text>
<rect class="${isOwn ? 'own' : 'bar'}" x="${LABEL_PX}" y="${y}" width="${barPx.toFixed(1)}" height="${ROW_PX - 8}" rx="2"/>
<text${text} x="${(LABEL_PX + barPx + 8).toFixed(1)}" y="${y + 13}">${formatFigure(figure, valueOf(row))}</text>`
  })
  return `<text class="title" style="font-size: 15px" x="0" y="12">${escape(title)}</text>
<text class="soft" style="font-size: 12px" x="0" y="32">${escape(subtitle)}</text>
${bars.join('\n')}`
}

export const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
