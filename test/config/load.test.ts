import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatIssue } from '../../src/config/issues.ts'
import { loadConfig, readConfig } from '../../src/config/load.ts'
import type { LoadResult } from '../../src/config/load.ts'

const TABLE = readFileSync(new URL('../../config/weirgate.yaml', import.meta.url), 'utf8')

const MINIMAL = `upstreams: {app: {targets: ["http://127.0.0.1:8000"]}}
routes: [{path: /*, upstream: app}]
`

const lines = (result: LoadResult): string[] => (result.ok ? [] : result.issues.map(formatIssue))
const load = (text: string, env: NodeJS.ProcessEnv = {}): LoadResult => loadConfig(text, 'w.yaml', env)

function mustLoad(text: string, env: NodeJS.ProcessEnv = {}) {
  const result = load(text, env)
  if (!result.ok) throw new Error(lines(result).join('\n'))
  return result
}

describe('config/weirgate.yaml', () => {
  it('runs as it is, without a variable set', () => {
    const { config } = mustLoad(TABLE)
    expect(config.listen.address).toEqual({ host: '0.0.0.0', port: 8080 })
    expect(config.limits['per-client']).toMatchObject({ limit: 60, window: 60_000 })
    expect(Object.values(config.upstreams).map(({ targets }) => targets[0]?.url.href)).toEqual([
      'http://127.0.0.1:8000/',
      'http://127.0.0.1:8001/',
    ])
  })

  it('takes every variable that it names', () => {
    const { config } = mustLoad(TABLE, {
      PORT: '81',
      PRESENTATION_URL: 'http://presentation:1',
      AI_URL: 'https://ai:2',
      RATE_LIMIT_PER_MINUTE: '7',
      LOG_LEVEL: 'DEBUG',
      ADMIN_TOKEN: 'a'.repeat(32),
      REDIS_URL: '',
    })
    expect(config).toMatchObject({
      listen: { address: { port: 81 } },
      log: { level: 'debug' },
      admin: { token: 'a'.repeat(32) },
      limits: { 'per-client': { limit: 7 } },
    })
    expect(Object.values(config.upstreams).map(({ targets }) => targets[0]?.url.href)).toEqual([
      'http://presentation:1/',
      'https://ai:2/',
    ])
  })

  it('begins with the line by which editors find the schema', () => {
    expect(TABLE.split('\n')[0]).toBe('# yaml-language-server: $schema=./weirgate.schema.json')
  })
})

describe('a document', () => {
  it('is read as YAML 1.2 whatever version it claims', () => {
    expect(lines(load(`%YAML 1.1\n---\n${MINIMAL}log: {slow: no}\n`))).toEqual([
      'w.yaml:5:13 log.slow: expected a duration such as "30s", at least 1ms, got "no"; units are ms, s, m, h, d',
    ])
  })

  it('may have a byte order mark and the line breaks of Windows', () => {
    expect(load(`\uFEFF${MINIMAL.replaceAll('\n', '\r\n')}`).ok).toBe(true)
  })

  it.each(['', '# nothing but a comment\n', 'null', 'text', '[]', '---\n...\n'])(
    'of no mapping (%j) is one fault',
    (text) => {
      const fault =
        /^w\.yaml:\d+:\d+: expected a mapping, got .+; a route table has "upstreams:" and "routes:" at least$/
      expect(lines(load(text))).toMatchObject([expect.stringMatching(fault)])
    },
  )

  it('tells who has named the routes by their paths that they are a list', () => {
    const text = 'upstreams: {a: {targets: ["http://a"]}}\nroutes:\n  /a: {upstream: a}\n'
    expect(lines(load(text))).toEqual(['w.yaml:3:3 routes: expected a list, got a mapping; begin each item with "- "'])
  })

  it('tells a fault of an anchored part once, where the part stands', () => {
    const text = `upstreams: {a: &a {targets: []}, b: *a, c: *a}\nroutes: [{path: /*, upstream: a}]\n`
    expect(lines(load(text))).toEqual(['w.yaml:1:29 upstreams.a.targets: expected at least 1 item, got an empty list'])
  })

  it('takes an anchor by its latest place before the alias', () => {
    const text = `${MINIMAL}log: &x {slow: &s 2s}\nredis: {deadline: &s 3ms}\nlimits: {a: {limit: 1, window: *s}}\n`
    expect(lines(load(text))).toEqual([
      'w.yaml:5:32 limits.a.window: expected a duration such as "30s", at least 100ms, or month, got "3ms"',
    ])
  })

  it('says nothing of what follows from a value that could not be made out', () => {
    const text = `upstreams: {app: {targets: ["\${A}"], connections: "\${B}"}}\nroutes: [{path: "\${C}", upstream: "\${D}"}]\n`
    expect(lines(load(text)).map((line) => line.replace(/.*variable (\w+),.*/, '$1'))).toEqual(['A', 'B', 'C', 'D'])
  })

  it('sorts faults by position, whichever check found them', () => {
    const result = load('routes:\n  - {upstream: x, path: y}\nupstreams: {}\nzzz: 1\nlog: {level: "${A}"}\n')
    expect(result.ok ? [] : result.issues.map(({ line, column }) => [line, column])).toEqual([
      [2, 16],
      [2, 25],
      [4, 1],
      [5, 14],
    ])
  })
})

describe('bounds', () => {
  const doubling = Array.from({ length: 40 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}]`).join('\n')

  it.each([
    [
      'a document of aliases that would grow without end',
      `a0: &a0 [x, x]\n${doubling}\n`,
      'more than 100000 values through aliases',
    ],
    ['an alias inside itself', 'a: &a {b: *a, c: *a}', 'more than 64 levels, or an alias of itself'],
    ['65 levels', `a: ${'['.repeat(65)}${']'.repeat(65)}`, 'more than 64 levels, or an alias of itself'],
    ['levels beyond the parser', `a: ${'['.repeat(20_000)}`, 'too many levels'],
  ])('%s: one fault, at its place', (_what, text, got) => {
    const [line, ...others] = lines(load(text))
    expect(line).toMatch(/^w\.yaml:\d+:\d+: /)
    expect(line).toContain(got)
    expect(others).toEqual([])
  })
})

describe('what is loaded', () => {
  const SECRET = 'hunter2-hunter2-hunter2-hunter2-'
  const text = `${MINIMAL}admin: {token: "\${TOKEN}"}
log: {level: "\${LEVEL}", redactQuery: [a]}
trustedProxies: [10.0.0.0/8]
`

  it('is frozen at every level', () => {
    const { config } = mustLoad(text, { TOKEN: SECRET, LEVEL: 'info' })
    for (const value of [
      config,
      config.log,
      config.log.redactQuery,
      config.routes[0],
      config.upstreams['app']?.targets,
    ]) {
      expect(Object.isFrozen(value)).toBe(true)
    }
  })

  it('comes with what the file says, fit to be shown', () => {
    const headers = `{path: /h, upstream: app, headers: {request: {set: {X-A: "\${TOKEN}", X-B: plain, Authorization: plain}}}}`
    const { shown } = mustLoad(text.replace('routes: [', `routes: [${headers}, `), { TOKEN: SECRET, LEVEL: 'warn' })
    expect(shown()).toEqual({
      upstreams: { app: { targets: ['http://127.0.0.1:8000'] } },
      routes: [
        {
          path: '/h',
          upstream: 'app',
          headers: { request: { set: { 'X-A': '(hidden)', 'X-B': 'plain', Authorization: '(hidden)' } } },
        },
        { path: '/*', upstream: 'app' },
      ],
      admin: { token: '(hidden)' },
      log: { level: 'warn', redactQuery: ['a'] },
      trustedProxies: ['10.0.0.0/8'],
    })
  })

  it('shows that no token is set', () => {
    expect(mustLoad(text, { TOKEN: '', LEVEL: 'info' }).shown()).toMatchObject({ admin: { token: '' } })
  })
})

describe('readConfig', () => {
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weirgate-config-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('reads a file, and files that it names beside itself', () => {
    const file = join(folder, 'w.yaml')
    writeFileSync(join(folder, 'token'), `${'t'.repeat(40)}\n`)
    writeFileSync(file, `${MINIMAL}admin: {token: "\${file:token}"}\n`)
    const result = readConfig(file, {})
    expect(result.ok && result.config.admin.token).toBe('t'.repeat(40))
  })

  it('tells of a missing file how to name another', () => {
    const file = join(folder, 'none.yaml')
    expect(lines(readConfig(file, {}))).toEqual([
      `${file}: expected a readable file, got no such file; name another with -c FILE`,
    ])
  })

  it('tells of a folder in place of a file', () => {
    expect(lines(readConfig(folder, {}))).toEqual([
      `${folder}: expected a readable file, got a folder; name another with -c FILE`,
    ])
  })

  it('tells of a named file that is missing or too large, at the value that names it', () => {
    const file = join(folder, 'w.yaml')
    writeFileSync(join(folder, 'large'), 'x'.repeat(64 * 1024 + 1))
    writeFileSync(file, `${MINIMAL}log: {level: "\${file:large}", slow: "\${file:none}"}\n`)
    expect(lines(readConfig(file, {}))).toEqual([
      `${file}:3:14 log.level: expected a readable file large, got more than 64KiB; mount it, or correct the path`,
      `${file}:3:37 log.slow: expected a readable file none, got no such file; mount it, or correct the path`,
    ])
  })
})

describe('any text at all', () => {
  const snippets = [
    '{',
    '}',
    '[',
    ']',
    ':',
    '- ',
    '\n',
    '  ',
    '"',
    "'",
    '&a ',
    '*a',
    '!!',
    '${',
    '${A}',
    '$${',
    '<<: ',
    '|',
    '%',
    '#',
    '---\n',
    '\t',
    '\0',
    'é',
    '\ud800',
    '0',
    '~',
    '__proto__: ',
  ]
  const edit = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.integer({ min: 0, max: 40 }),
    put: fc.oneof(fc.constantFrom(...snippets), fc.string({ unit: 'binary', maxLength: 5 })),
  })

  /** What is wrong with the answer, '' for nothing: either it loads, or faults are named, each on one line, at a place
   *  that the text has, in the order of their places. */
  const wrongWith = (text: string): string => {
    const result = load(text, { A: 'x' })
    if (result.ok) return ''
    if (result.issues.length === 0) return 'refused without a fault'
    const lineCount = text.split('\n').length
    let last = { line: 0, column: 0 }
    for (const issue of result.issues) {
      if (issue.line > lineCount) return `a fault on line ${issue.line} of ${lineCount}`
      if (/[\r\n]/.test(formatIssue(issue))) return `a line break in ${formatIssue(issue)}`
      if (issue.line < last.line || (issue.line === last.line && issue.column < last.column)) return 'out of order'
      last = issue
    }
    return ''
  }

  it('loads or is refused, and never throws, when the example is damaged', () => {
    const damaged = fc.property(fc.array(edit, { minLength: 1, maxLength: 6 }), (edits) => {
      let text = TABLE
      for (const { at, length, put } of edits) {
        const start = Math.floor(at * text.length)
        text = text.slice(0, start) + put + text.slice(start + length)
      }
      expect(wrongWith(text)).toBe('')
    })
    fc.assert(damaged, { numRuns: 300 })
  })

  it('loads or is refused, and never throws, when a part has any other shape', () => {
    const parts = ['listen', 'admin', 'log', 'trustedProxies', 'upstreams', 'limits', 'defaults', 'routes', 'health']
    const value = fc.jsonValue({ maxDepth: 4 })
    const misshapen = fc.property(fc.constantFrom(...parts), value, value, (part, a, b) => {
      const upstreams = { app: { targets: ['http://h'] } }
      const table = { upstreams, routes: [{ path: '/a', cache: a, limits: b }, a], [part]: b }
      expect(wrongWith(JSON.stringify(table))).toBe('')
    })
    fc.assert(misshapen, { numRuns: 300 })
  })
})
