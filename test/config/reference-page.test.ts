import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { configReference } from '../../src/config/reference-page.ts'

const page = configReference()
const rows = page.split('\n').filter((line) => line.startsWith('| `'))

describe('the reference of the configuration', () => {
  it('is the committed docs/configuration.md', () => {
    expect(readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')).toBe(page)
  })

  it('gives an option with its value, default and meaning', () => {
    expect(rows).toContain(
      '| `slow` | a duration such as "30s", at least 1ms | `1s` | a request that takes longer is logged as slow |',
    )
    expect(rows).toContain(
      '| `limit` | a whole number from 1 to 2147483648, or with unit: cost any number above 0 | **required** | units admitted per window, or at the same time |',
    )
  })

  it('lists options that are refused for now apart from the others', () => {
    expect(page).toMatch(/^Not supported yet, and refused until then: .*`proxyProtocol`/m)
    expect(rows.filter((row) => row.startsWith('| `proxyProtocol`'))).toEqual([])
  })

  it('has four cells in every row, and a meaning in the last', () => {
    const isWhole = (row: string): boolean => {
      const cells = row.split(/(?<!\\)\|/).slice(1, -1)
      return cells.length === 4 && cells[1]?.trim() !== '' && cells[3]?.trim() !== ''
    }
    expect(rows.length).toBeGreaterThan(50)
    expect(rows.filter((row) => !isWhole(row))).toEqual([])
  })

  it('links only to sections that it has, and has each once', () => {
    const anchors = [...page.matchAll(/^## (.+)$/gm)].map(([, heading]) =>
      (heading as string).toLowerCase().replaceAll(/[^\w -]/g, ''),
    )
    const links = [...page.matchAll(/\]\(#([^)]*)\)/g)].map(([, anchor]) => anchor)
    expect(new Set(anchors).size).toBe(anchors.length)
    expect(links.length).toBeGreaterThan(10)
    expect(links.filter((link) => !anchors.includes(link as string))).toEqual([])
  })
})
