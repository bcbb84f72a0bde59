// The key by which requests keep to a target, as a number. The same in all instances and after a restart, so that they
// agree. A client that finds texts which fall together sends itself to one target, which the rule bounds.

import type { RequestContext } from '../core/context.ts'
import { KeyedHash } from '../core/keyed-hash.ts'
import { cookieValues, readCookies } from '../http/cookies.ts'
import { getCombined } from '../http/headers.ts'
import type { BalanceKey } from './options.ts'

const HASH = new KeyedHash(Buffer.alloc(8))

/** 32 bits. */
export const hashText = (text: string): number => HASH.of(text, 0)

/** Of a request; null where it has no such part. */
export function compileHashKey(key: BalanceKey): (ctx: RequestContext) => number | null {
  const read = compileRead(key)
  return (ctx) => {
    const text = read(ctx)
    return text === null || text === '' ? null : hashText(text)
  }
}

function compileRead(key: BalanceKey): (ctx: RequestContext) => string | null {
  if (key.kind === 'header') return (ctx) => getCombined(ctx.headers, key.name)
  if (key.kind === 'param') return (ctx) => ctx.params?.get(key.name) ?? null
  if (key.kind === 'cookie') {
    return (ctx) => {
      const cookies = readCookies(ctx.headers)
      return (cookies === null ? [] : cookieValues(cookies, key.name))[0] ?? null
    }
  }
  return READ[key.kind]
}

const READ = {
  ip: (ctx) => ctx.clientAddress,
  user: (ctx) => ctx.user?.id ?? null,
  host: (ctx) => ctx.host,
  path: (ctx) => ctx.path,
  url: (ctx) => ctx.host + ctx.path + ctx.query,
} as const satisfies Record<string, (ctx: RequestContext) => string | null>
