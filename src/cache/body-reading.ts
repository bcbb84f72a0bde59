// Reading a request body before the lookup, where it is part of the key. It is held in memory from then on, for whoever has
// to send it; so a body has a bound, and all of them together have one. What is beyond either goes to the origin as it
// comes, and its answer is not stored.

import type { RequestBody, RequestContext } from '../core/context.ts'
import { holdBody } from '../core/held-body.ts'
import { type BodyKeyPart, MAX_KEYED_BODY_BYTES } from './body-key.ts'
import type { KeyRule } from './key-rule.ts'
import type { SharedCache } from './shared.ts'

const MAX_HELD_BYTES = 64 * 1024 ** 2

type ReadPart = BodyKeyPart | { readonly ok: false; readonly reason: 'body-budget' }

const EMPTY = Buffer.alloc(0)

/** Holds a request's body, and puts it in the place of ctx.body. False where it is too long for that, or there is no room.
 *  Rejects with a GatewayError where the client breaks off or breaks a limit. */
export function compileBodyHolding(
  shared: Pick<SharedCache, 'heldBytes'>,
  maxBodyBytes: number,
): (ctx: RequestContext, body: RequestBody) => Promise<'held' | 'too-large' | 'budget'> {
  return async (ctx, body) => {
    const { declaredBytes } = body
    // Neither read nor invited: it is refused, or streams through.
    if (declaredBytes !== null && declaredBytes > Math.min(MAX_KEYED_BODY_BYTES, maxBodyBytes)) return 'too-large'
    const mostBytes = declaredBytes ?? MAX_KEYED_BODY_BYTES
    if (shared.heldBytes + mostBytes > MAX_HELD_BYTES) return 'budget'
    shared.heldBytes += mostBytes
    const held = await holdBody(body, { maxHeldBytes: MAX_KEYED_BODY_BYTES, maxBodyBytes }, () => {
      shared.heldBytes -= mostBytes
    })
    ctx.body = held
    return held.bytes === undefined ? 'too-large' : 'held'
  }
}

/** The part of a request's body in its key, or why it has none. Puts in the place of ctx.body what can be sent after that.
 *  Rejects with a GatewayError where the client breaks off or breaks a limit. */
export function compileBodyReading(
  shared: SharedCache,
  { bodyPart }: KeyRule,
  maxBodyBytes: number,
): (ctx: RequestContext) => Promise<ReadPart> {
  const hold = compileBodyHolding(shared, maxBodyBytes)
  return async (ctx) => {
    const { body, headers } = ctx
    if (body === null) return bodyPart(headers, EMPTY)
    const outcome = await hold(ctx, body)
    if (outcome === 'budget') return { ok: false, reason: 'body-budget' }
    const bytes = ctx.body?.bytes
    return outcome === 'held' && bytes !== undefined
      ? bodyPart(headers, bytes)
      : { ok: false, reason: 'body-too-large' }
  }
}
