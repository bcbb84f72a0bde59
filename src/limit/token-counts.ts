// What has been used by routes under limits in tokens or in money: told by answers, estimated, or spared, since what is
// stored has answered. And by policy, what was reserved for it and what was charged in the end: far apart, a reservation is
// worth changing. Bounded by the routes and the policies of the configuration.

import type { Spent } from './meter.ts'
import type { Tokens } from './usage.ts'

export const TOKEN_SOURCES = ['actual', 'estimated', 'saved'] as const
export type TokenSource = (typeof TOKEN_SOURCES)[number]
export const TOKEN_KINDS = ['input', 'cached', 'output'] as const satisfies readonly (keyof Tokens)[]

export interface TokenCount {
  readonly route: string
  readonly kind: (typeof TOKEN_KINDS)[number]
  readonly source: TokenSource
  readonly count: number
}

type Sums = Record<keyof Tokens, number>

const none = (): Sums => ({ input: 0, cached: 0, output: 0 })

class RouteCounts {
  readonly sums: Readonly<Record<TokenSource, Sums>> = { actual: none(), estimated: none(), saved: none() }
  /** Requests that have used something. */
  requests = 0
}

export class TokenCounts {
  readonly #routes = new Map<string, RouteCounts>()

  use(route: string, spent: Spent): void {
    if (spent.input + spent.cached + spent.output === 0) return
    const counts = this.#of(route)
    counts.requests++
    add(counts.sums[spent.isEstimated ? 'estimated' : 'actual'], spent, 1)
  }

  /** A request has been answered without a call: it would have used as much as others of the route have. */
  spare(route: string): void {
    const counts = this.#routes.get(route)
    if (counts === undefined || counts.requests === 0) return
    const { actual, estimated, saved } = counts.sums
    for (const used of [actual, estimated]) add(saved, used, 1 / counts.requests)
  }

  /** Forgets all routes but these. */
  keep(live: ReadonlySet<string>): void {
    for (const route of this.#routes.keys()) if (!live.has(route)) this.#routes.delete(route)
  }

  counts(): TokenCount[] {
    return [...this.#routes].flatMap(([route, { sums }]) =>
      TOKEN_SOURCES.flatMap((source) =>
        TOKEN_KINDS.flatMap((kind) => {
          const count = Math.round(sums[source][kind])
          return count === 0 ? [] : [{ route, kind, source, count }]
        }),
      ),
    )
  }

  #of(route: string): RouteCounts {
    const known = this.#routes.get(route)
    if (known !== undefined) return known
    const counts = new RouteCounts()
    this.#routes.set(route, counts)
    return counts
  }
}

function add(sums: Sums, tokens: Tokens, share: number): void {
  for (const kind of TOKEN_KINDS) sums[kind] += tokens[kind] * share
}
