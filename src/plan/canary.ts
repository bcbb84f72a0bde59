// The canary of a route: another upstream that some of its requests go to, by what they say of themselves or by lot. The lot
// is drawn from who asks, the same in all instances and after a restart: a client that goes both ways would see two versions
// of everything in turns. With a larger share those who are on it stay.
//
// What is stored of the two never mixes: the keys of a canary's answers say so (cache/key-rule.ts). That covers all that
// goes by key: tiers, fetches that are shared or refresh, leases. A purge goes by URL or tag, and reaches both.

import type { RouteCache } from '../cache/cache.ts'
import type { RouteOptions } from '../config/schema.ts'
import type { RequestContext } from '../core/context.ts'
import { KeyedHash } from '../core/keyed-hash.ts'
import { getCombined } from '../http/headers.ts'
import type { Backing } from './backing.ts'

export type CanaryOptions = NonNullable<RouteOptions['canary']>

const HASH = new KeyedHash(Buffer.alloc(8))

/** Whether a request goes to the canary; for the same request always the same. */
export function compileCanaryRule({ upstream, percent, header, by }: CanaryOptions): (ctx: RequestContext) => boolean {
  // Of its name, so that all routes with one canary send it the same clients, and another canary has others.
  const salt = HASH.of(upstream, 0)
  const below = (percent / 100) * 2 ** 32
  return (ctx) => {
    const wish = header === undefined ? null : getCombined(ctx.headers, header)?.trim().toLowerCase()
    if (wish === 'always') return true
    if (wish === 'never' || below === 0) return false
    const who = by === 'request' ? ctx.id : (ctx.user?.id ?? ctx.clientAddress)
    return HASH.of(who, salt) >>> 0 < below
  }
}

/** The two as one. It is decided after the identity is known, and once for a request. */
export function withCanary(options: CanaryOptions, stable: Backing, canary: Backing): Backing {
  const isDrawn = compileCanaryRule(options)
  const of = (ctx: RequestContext): Backing => {
    ctx.isCanary ??= isDrawn(ctx)
    return ctx.isCanary ? canary : stable
  }
  return {
    // Which of them a request that waits has come to is not known before it is answered.
    pool: {
      enter() {
        stable.pool.enter()
        canary.pool.enter()
      },
      leave() {
        stable.pool.leave()
        canary.pool.leave()
      },
    },
    forwarder: {
      stage: (ctx) => of(ctx).forwarder.stage(ctx),
      handshake: (ctx) => of(ctx).forwarder.handshake(ctx),
      rewritePath: stable.forwarder.rewritePath,
    },
    cache: stable.cache === null || canary.cache === null ? null : eitherCache(of, stable.cache, canary.cache),
    upstreamOf: (ctx) => of(ctx).upstreamOf(ctx),
  }
}

function eitherCache(of: (ctx: RequestContext) => Backing, stable: RouteCache, canary: RouteCache): RouteCache {
  const at = (ctx: RequestContext): RouteCache => (of(ctx).cache === canary ? canary : stable)
  return {
    lookup: (ctx) => at(ctx).lookup(ctx),
    findNow: (ctx) => at(ctx).findNow(ctx),
    answerFound: (ctx, found) => at(ctx).answerFound(ctx, found),
    fill: (ctx, mayAsk) => at(ctx).fill(ctx, mayAsk),
    answerUnasked: (ctx) => at(ctx).answerUnasked(ctx),
    explain: (ctx) => at(ctx).explain(ctx),
    explainUnasked: (ctx, isRead) => at(ctx).explainUnasked(ctx, isRead),
  }
}
