// Reading a request body before the lookup, where it is part of the key. It is held in memory from then on, for whoever has
// to send it; so a body has a bound, and all of them together have one. What is beyond either goes to the origin as it
// comes, and its answer is not stored.

import type { RequestContext } from '../core/context.ts'
import { HeldBody, holdBody } from '../core/held-body.ts'
import { type BodyKeyPart, MAX_KEYED_BODY_BYTES } from './body-key.ts'
import type { KeyRule } from './key-rule.ts'
import type { SharedCache } from './shared.ts'

const MAX_HELD_BYTES = 64 * 1024 ** 2

type ReadPart = BodyKeyPart | { readonly ok: false; readonly reason: 'body-budget' }

const EMPTY = Buffer.alloc(0)

/** The part of a request's body in its key, or why it has none. Puts in the place of ctx.body what can be sent after that.
 *  Rejects with a GatewayError where the client breaks off or breaks a limit. */
export function compileBodyReading(
  shared: SharedCache,
  { bodyPart }: KeyRule,
  maxBodyBytes: number,
): (ctx: RequestContext) => Promise<ReadPart> {
  return async (ctx) => {
    const { body, headers } = ctx
    if (body === null) return bodyPart(headers, EMPTY)
    const { declaredBytes } = body
    // Neither read nor invited: it is refused, or streams through.
    if (declaredBytes !== null && declaredBytes > Math.min(MAX_KEYED_BODY_BYTES, maxBodyBytes)) {
      return { ok: false, reason: 'body-too-large' }
    }
    const mostBytes = declaredBytes ?? MAX_KEYED_BODY_BYTES
    if (shared.heldBytes + mostBytes > MAX_HELD_BYTES) return { ok: false, reason: 'body-budget' }
    shared.heldBytes += mostBytes
    const held = await holdBody(body, { maxHeldBytes: MAX_KEYED_BODY_BYTES, maxBodyBytes }, () => {
      shared.heldBytes -= mostBytes
    })
    ctx.body = held
    return held instanceof HeldBody ? bodyPart(headers, held.bytes) : { ok: false, reason: 'body-too-large' }
  }
}
