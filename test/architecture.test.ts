// Holds the one-way street of imports: who may import whom, which package lives where, no cycles, no barrels. Reads the
// import lines, so it needs no build.

import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const SRC = fileURLToPath(new URL('../src/', import.meta.url))

/** A folder of src (or a file at its top) and what it may import of the others. `x/options` is that one file. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  http: ['core'],
  identity: ['core', 'http'],
  limit: ['core', 'http'],
  cache: ['core', 'http'],
  upstream: ['core', 'http'],
  idempotency: ['core', 'http'],
  server: ['core', 'http'],
  observe: ['core', 'http'],
  admin: ['core', 'http', 'observe/log', 'server/options'],
  config: [
    'core',
    'http',
    'admin/options',
    'cache/options',
    'idempotency/options',
    'identity/options',
    'limit/calendar',
    'limit/lease',
    'limit/options',
    'limit/quota',
    'observe/options',
    'server/options',
    'upstream/options',
  ],
  plan: ['core', 'http', 'identity', 'limit', 'idempotency', 'cache', 'upstream', 'config'],
  demo: [],
  'gateway.ts': [
    'core',
    'http',
    'limit',
    'idempotency',
    'cache',
    'upstream',
    'config',
    'plan',
    'server',
    'observe',
    'admin',
  ],
  cli: ['core', 'config', 'admin/options', 'server/options', 'gateway.ts', 'demo'],
  'main.ts': ['core', 'cli', 'gateway.ts'],
}

/** Packages and the only places that import them. */
const PACKAGES: Readonly<Record<string, RegExp>> = {
  ioredis: /^core\/redis-client\.ts$/,
  yaml: /^config\/load\.ts$/,
  zod: /^(core\/decode|config\/[a-z-]+|[a-z]+\/options|admin\/endpoints\/[a-z]+)\.ts$/,
  jose: /^identity\/jwt\.ts$/,
  pino: /^observe\/log\.ts$/,
  commander: /^(main\.ts|cli\/.+)$/,
}

interface Import {
  readonly from: string
  /** A path below src, a package, or `node:x`. */
  readonly to: string
}

/** Every import and re-export of a source text, type-only ones too. */
function importsOf(file: string, source: string): Import[] {
  const found: Import[] = []
  for (const [, specifier = ''] of source.matchAll(/^\s*(?:import|export)\s[^'"]*?from\s+'([^']+)'/gm)) {
    found.push({ from: file, to: specifier.startsWith('.') ? join(dirname(file), specifier) : specifier })
  }
  for (const [, specifier = ''] of source.matchAll(/^\s*import\s+'([^']+)'|import\('([^']+)'\)/gm)) {
    if (specifier.startsWith('.')) found.push({ from: file, to: join(dirname(file), specifier) })
  }
  return found
}

const placeOf = (file: string): string => file.split('/')[0] as string

/** What is wrong with an import, in words; null when nothing is. */
function breach({ from, to }: Import): string | null {
  if (to.startsWith('node:')) return null
  if (!to.endsWith('.ts')) {
    const home = PACKAGES[to]
    if (home === undefined) return `${from} imports ${to}, which has no place in the house`
    return home.test(from) ? null : `${from} imports ${to}, which only ${home} may`
  }
  const [here, there] = [placeOf(from), placeOf(to)]
  if (here === there) return null
  const allowed = MAY_IMPORT[here]
  if (allowed === undefined) return `${from}: the folder ${here} has no rule`
  if (allowed.includes(there) || allowed.includes(to.replace(/\.ts$/, ''))) return null
  return `${from} imports ${to}, which runs the wrong way`
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
const imports = files.flatMap((file) => importsOf(relative('.', file), readFileSync(join(SRC, file), 'utf8')))

describe('the house', () => {
  it('has imports that run one way only, and every package in its place', () => {
    expect(imports.map(breach).filter((found) => found !== null)).toEqual([])
    expect(imports.length).toBeGreaterThan(100)
  })

  it('has no cycles', () => {
    const edges = new Map<string, string[]>()
    for (const { from, to } of imports) if (to.endsWith('.ts')) edges.set(from, [...(edges.get(from) ?? []), to])
    const done = new Set<string>()
    const cycleFrom = (file: string, path: readonly string[]): string | null => {
      if (path.includes(file)) return [...path.slice(path.indexOf(file)), file].join(' -> ')
      if (done.has(file)) return null
      for (const next of edges.get(file) ?? []) {
        const cycle = cycleFrom(next, [...path, file])
        if (cycle !== null) return cycle
      }
      done.add(file)
      return null
    }
    expect(files.map((file) => cycleFrom(file, [])).filter((cycle) => cycle !== null)).toEqual([])
  })

  it('has no barrels: no file only passes on what others export', () => {
    const barrels = files.filter((file) =>
      /^export\s+(\*|\{[^}]*\})\s+from/m.test(readFileSync(join(SRC, file), 'utf8')),
    )
    expect(barrels).toEqual([])
  })

  it('imports no part of Node that takes long and gives little: node:http is in core/node-http.ts', () => {
    const slow = files.filter((file) =>
      /^import (?!type\b)[^'"]*? from 'node:(https?|http2|tls)'/m.test(readFileSync(join(SRC, file), 'utf8')),
    )
    expect(slow).toEqual([])
  })

  it.each([
    ['a feature that imports another', 'cache/cache.ts', "import { x } from '../limit/limiter.ts'"],
    ['a noun that imports a feature', 'core/context.ts', "import type { X } from '../cache/entry.ts'"],
    ['text that knows the configuration', 'http/date.ts', "import { x } from '../config/schema.ts'"],
    ['the server past its door', 'server/listener.ts', "import { x } from '../plan/compile.ts'"],
    ['a package away from home', 'cache/cache.ts', "import { Redis } from 'ioredis'"],
    ['a package without a home', 'core/clock.ts', "import lodash from 'lodash'"],
    ['a name spread over lines', 'limit/key.ts', "import {\n  a,\n  b,\n} from '../upstream/pool.ts'"],
  ])('sees %s', (_what, file, source) => {
    expect(importsOf(file, source).map(breach)).toEqual([expect.stringContaining(file)])
  })
})
