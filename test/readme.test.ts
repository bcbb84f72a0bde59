// The README's claims that a machine can check: its error table, its route table, its commands.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { pictureOf } from '../bench/picture.ts'
import { BASELINE, FOLDER, type Results, readResults } from '../bench/results.ts'
import { tablesOf, withTables } from '../bench/tables.ts'
import { loadConfig } from '../src/config/load.ts'
import { ERRORS } from '../src/core/errors.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  scripts: Record<string, string>
}

describe('the README', () => {
  it('lists every error with its status, code, title and source', () => {
    const rows = Object.entries(ERRORS).map(
      ([code, { status, title, source }]) => `| ${status} | \`${code}\` | ${title} | ${source} |`,
    )
    const table = readme.split('<!-- errors -->')[1]?.split('<!-- /errors -->')[0]?.trim().split('\n').slice(2)
    expect(table).toEqual(rows)
  })

  it('has route tables that load as they stand', () => {
    const tables = [...readme.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, yaml = '']) => yaml)
    const loaded = tables.map((yaml) => loadConfig(yaml, 'gateway.yaml', {}))
    expect(loaded.map((table) => (table.ok ? table.config.routes.length : table.issues))).toEqual([3, 1])
  })

  it('shows the committed figures', () => {
    const baseline = readResults(BASELINE) as Results
    expect(readme).toBe(withTables(readme, tablesOf(baseline)))
    expect(readFileSync(`${FOLDER}/figures.svg`, 'utf8')).toBe(pictureOf(baseline))
  })

  it('names only scripts that there are', () => {
    const named = [...readme.matchAll(/npm (?:run (?:-s )?)?(start|test|check|bench|docs|weirgate)\b/g)].map(
      ([, script]) => script,
    )
    expect(named.length).toBeGreaterThan(5)
    for (const script of named) expect(manifest.scripts).toHaveProperty(script as string)
  })
})
