// The limits on what the upstream is asked, with a request's body held first where they go by it: no limit can be asked
// about what has not come. The room for such bodies is that of all bodies that are held. What does not fit is not held, and
// goes by its length.

import type { Stage } from '../core/context.ts'
import { compileBodyHolding } from '../cache/body-reading.ts'
import type { SharedCache } from '../cache/shared.ts'
import type { Limiter } from '../limit/limiter.ts'

/** maxBodyBytes: of the route. */
export function compileMisses(
  { checkMiss, readsBody }: Pick<Limiter, 'checkMiss' | 'readsBody'>,
  shared: Pick<SharedCache, 'heldBytes'>,
  maxBodyBytes: number,
): Stage | null {
  if (checkMiss === null || !readsBody) return checkMiss
  const hold = compileBodyHolding(shared, maxBodyBytes)
  return (ctx) => {
    const { body } = ctx
    if (body === null || body.bytes !== undefined) return checkMiss(ctx)
    return hold(ctx, body).then(() => checkMiss(ctx))
  }
}
