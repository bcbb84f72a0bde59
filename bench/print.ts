// What a scenario tells, as text for a terminal.

import { FIGURES, type Figure, type Outcome, type Row, goalText, isMet } from './scenario.ts'

export function printOutcome({ rows, checks }: Outcome): void {
  if (rows.length === 0) {
    console.log('left out: what it needs is not installed')
    return
  }
  const figures = figuresOf(rows)
  const table = [
    ['', ...figures.map((figure) => FIGURES[figure].title), ''],
    ...rows.map((row) => [
      row.server,
      ...figures.map((figure) => formatFigure(figure, row.figures[figure])),
      row.noisy ? 'noisy' : '',
    ]),
  ]
  const widths = table[0]?.map((_, column) => Math.max(...table.map((line) => line[column]?.length ?? 0))) ?? []
  for (const line of table) {
    console.log(
      line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
    )
  }
  for (const check of checks) {
    const goal = check.goal === null ? '' : `, goal ${goalText(check)}: ${isMet(check) ? 'met' : 'MISSED'}`
    console.log(`${check.what}: ${formatValue(check.value)}${goal}`)
  }
}

/** Those that any of the rows has. */
export const figuresOf = (rows: readonly Row[]): Figure[] =>
  (Object.keys(FIGURES) as Figure[]).filter((figure) => rows.some((row) => row.figures[figure] !== undefined))

export const formatFigure = (figure: Figure, value: number | undefined): string =>
  value === undefined ? '' : value.toFixed(FIGURES[figure].digits)

/** As many digits as tell something. */
export const formatValue = (value: number): string => {
  if (!Number.isFinite(value)) return '-'
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) < 0.01 && value !== 0 ? 5 : 2)
}
