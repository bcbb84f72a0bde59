// Each file in test/golden/config: a route table, a line `---8<---`, then what becomes of it: the decoded configuration
// as JSON, or the exact lines of its faults.

import { readFileSync, readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { formatIssue } from '../../src/config/issues.ts'
import { loadConfig } from '../../src/config/load.ts'

const FOLDER = new URL('../golden/config/', import.meta.url)
const CUT = '---8<---\n'

const ENV = {
  PORT: '9000',
  EMPTY: '',
  ZERO: '0',
  NESTED: '/${PORT}',
  LEVEL: 'from-outside',
  RATE: '99',
  URL: 'hunter2',
  BREAK: 'hunter2\r\n',
  SEALED: 'hunter2'.repeat(5),
}

const plain = (config: unknown): unknown =>
  JSON.parse(
    JSON.stringify(config, (_key, value: unknown) =>
      value instanceof Map ? (Object.fromEntries(value) as unknown) : value,
    ),
  )

describe('golden route tables', () => {
  it.each(readdirSync(FOLDER).toSorted())('%s', (name) => {
    const [yaml, expected] = readFileSync(new URL(name, FOLDER), 'utf8').split(CUT) as [string, string]
    const result = loadConfig(yaml, name, ENV)
    const outcome = result.ok ? plain(result.config) : result.issues.map(formatIssue)
    expect(outcome).toEqual(expected.startsWith('{') ? JSON.parse(expected) : expected.trimEnd().split('\n'))
  })

  it('tells ten different faults in ten lines', () => {
    const [yaml] = readFileSync(new URL('ten-errors.yaml', FOLDER), 'utf8').split(CUT) as [string]
    const result = loadConfig(yaml, 'ten-errors.yaml', {})
    const lines = result.ok ? [] : result.issues.map(formatIssue)
    expect(lines).toHaveLength(10)
    for (const line of lines) expect(line).toMatch(/^ten-errors\.yaml:\d+:\d+ [\w[\].-]+: /)
  })

  it('shows no secret in any message', () => {
    const [yaml] = readFileSync(new URL('secrets.yaml', FOLDER), 'utf8').split(CUT) as [string]
    const result = loadConfig(yaml, 'secrets.yaml', ENV)
    const text = JSON.stringify(result.ok ? [] : result.issues)
    expect(text).toContain('got')
    for (const secret of ['hunter2', 'from-outside', '99', '12345']) expect(text).not.toContain(secret)
  })
})
