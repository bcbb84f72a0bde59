// How much is reserved for a request where nobody has said: what nine in ten of those before it have used that were to the
// same route and about as long. Counted in steps of a fifth, which is as exact as a reservation need be, and with older
// requests counting less and less, so that it follows a service that changes.
//
// Bounded: at most MAX_ROUTES routes with SIZES sizes each, and a quarter of a KiB for each of those.

import type { RequestContext } from '../core/context.ts'

/** Of 0 bytes, of 1, of 2 or 3, of 4 to 7 and so on; the last is of all that are longer, or do not say. */
const SIZES = 24
/** 2^(1/4) from one to the next. */
const STEPS = 128
const STEPS_PER_DOUBLING = 4
const MAX_ROUTES = 1000
/** Beyond it all that is known counts half. */
const MAX_KNOWN = 200
/** Fewer say nothing. */
const MIN_KNOWN = 10
const SHARE = 0.9

class Uses {
  reserve: number | null = null
  readonly #counts = new Uint16Array(STEPS)
  #known = 0

  note(units: number): void {
    const step = Math.min(STEPS - 1, Math.ceil(Math.log2(Math.max(1, units)) * STEPS_PER_DOUBLING))
    this.#counts[step] = (this.#counts[step] as number) + 1
    if (++this.#known > MAX_KNOWN) this.#halve()
    this.reserve = this.#known < MIN_KNOWN ? null : this.#quantile()
  }

  #halve(): void {
    this.#known = 0
    for (let i = 0; i < STEPS; i++) this.#known += this.#counts[i] = (this.#counts[i] as number) >> 1
  }

  #quantile(): number {
    let below = 0
    let step = 0
    while (step < STEPS - 1 && (below += this.#counts[step] as number) < SHARE * this.#known) step++
    return Math.ceil(2 ** (step / STEPS_PER_DOUBLING))
  }
}

export class LearnedReserve {
  readonly #routes = new Map<string, (Uses | undefined)[]>()

  /** Units; null where too little is known. */
  of(ctx: RequestContext): number | null {
    return this.#routes.get(ctx.route ?? '')?.[sizeOf(ctx)]?.reserve ?? null
  }

  /** units: what a request has used. */
  note(ctx: RequestContext, units: number): void {
    const route = ctx.route ?? ''
    let sizes = this.#routes.get(route)
    if (sizes === undefined) {
      if (this.#routes.size === MAX_ROUTES) return
      sizes = []
      this.#routes.set(route, sizes)
    }
    const uses = (sizes[sizeOf(ctx)] ??= new Uses())
    uses.note(units)
  }
}

function sizeOf({ body }: RequestContext): number {
  const bytes = body === null ? 0 : (body.bytes?.length ?? body.declaredBytes)
  return bytes === null ? SIZES - 1 : Math.min(SIZES - 1, Math.floor(Math.log2(bytes + 1)))
}
