// Does the time of a look-up grow with the number of routes? Nanoseconds per match with 10, 100, 1,000 and 10,000 routes,
// interleaved rounds, medians, and the ratio to the smallest table. Hits, parameters and misses are timed apart.

import { compileRouter, type RoutePattern } from '../src/plan/router.ts'

const ROUNDS = 9
const LOOKUPS = 200_000

interface Table {
  readonly count: number
  readonly router: ReturnType<typeof compileRouter<number>>
  readonly paths: Readonly<Record<'exact' | 'below' | 'param' | 'none', readonly string[]>>
}

function build(count: number): Table {
  const routes: (RoutePattern & { route: number })[] = []
  for (let i = 0; i < count; i++) {
    const shape = [`/api/v1/service${i}/items`, `/api/v1/service${i}/*`, `/api/v1/service${i}/items/:id/parts`][
      i % 3
    ] as string
    routes.push({ host: null, path: shape, methods: i % 2 === 0 ? ['GET', 'HEAD'] : null, route: i })
  }
  const some = Array.from({ length: 64 }, (_, i) => Math.floor((i * count) / 64 / 3) * 3)
  return {
    count,
    router: compileRouter(routes),
    paths: {
      exact: some.map((i) => `/api/v1/service${i}/items`),
      below: some.map((i) => `/api/v1/service${Math.min(i + 1, count - 1)}/a/b`),
      param: some.map((i) => `/api/v1/service${Math.min(i + 2, count - 1)}/items/4711/parts`),
      none: some.map((i) => `/api/v2/service${i}`),
    },
  }
}

function nanosecondsPerMatch({ router }: Table, paths: readonly string[]): number {
  const startedAt = process.hrtime.bigint()
  let found = 0
  for (let i = 0; i < LOOKUPS; i++) if ('route' in router.match('gateway.test', 'GET', paths[i & 63] as string)) found++
  const ns = Number(process.hrtime.bigint() - startedAt) / LOOKUPS
  if (found < 0) throw new Error('unreachable: keeps the loop from being optimised away')
  return ns
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number

export function benchRouter(): void {
  const tables = [10, 100, 1000, 10_000].map(build)
  const times = new Map<string, number[]>()
  for (let round = -2; round < ROUNDS; round++) {
    for (const table of tables) {
      for (const [kind, paths] of Object.entries(table.paths)) {
        const ns = nanosecondsPerMatch(table, paths)
        const key = `${kind} ${table.count}`
        if (round >= 0) times.set(key, [...(times.get(key) ?? []), ns])
      }
    }
  }
  console.log('routes     exact      below      param      none    (ns per match, ratio to 10 routes)')
  for (const { count, paths } of tables) {
    const cells = Object.keys(paths).map((kind) => {
      const ns = median(times.get(`${kind} ${count}`) ?? [])
      return `${ns.toFixed(0).padStart(4)} ${(ns / median(times.get(`${kind} 10`) ?? [])).toFixed(2)}x`
    })
    console.log(`${String(count).padStart(6)}  ${cells.join('  ')}`)
  }
}
