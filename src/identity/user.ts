// Who a request comes from, beyond its address: the first source of the route table that names a user. A name that is
// proved (a signature, a known key, the word of a trusted proxy) may pass `auth: required`; one that is only claimed
// tells users apart, for limits and caches, and no more.
//
// Who fails to prove who they are is anonymous, and refused only where a route requires more (RFC 9110 §11.6.1).

import { hash } from 'node:crypto'
import type { Reply, RequestContext, Stage } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { problemReply } from '../http/problem.ts'
import { type Finding, NOBODY, REFUSED, onlyLine } from './finding.ts'
import { type TellLostKeys, compileJwtSource, namespaceOf } from './jwt.ts'
import type { HeaderSourceOptions, IdentityOptions } from './options.ts'

export interface Identity {
  /** Sets ctx.user. With `isRequired`, answers 401 to who has proved nothing. Waits only where a proof is seen for the
   *  first time. */
  stage(isRequired: boolean): Stage
}

/** The request fields by which users are known, lower case: what carries one is not a request of everybody's. */
export const identifyingFields = ({ user }: IdentityOptions): readonly string[] =>
  user.map(({ jwt, header = '' }) => jwt?.header ?? header)

/** Stands for who is meant by the ids of users: the same id under another one may be another person. */
export const meaningOfIds = ({ user }: IdentityOptions): string =>
  JSON.stringify(
    user.map(({ jwt, header, trusted, keys }) =>
      jwt === undefined ? [header, trusted, Object.keys(keys ?? {})] : [jwt.header, namespaceOf(jwt)],
    ),
  )

/** now: wall clock, milliseconds. */
export function compileIdentity(options: IdentityOptions, now: () => number, tell: TellLostKeys): Identity {
  const hasOneIssuer = options.user.filter(({ jwt }) => jwt !== undefined).length === 1
  const sources = options.user.map(({ jwt, header = '', ...rest }) =>
    jwt === undefined
      ? compileHeaderSource({ header, ...rest })
      : compileJwtSource(jwt, hasOneIssuer ? 'jwt:' : `jwt:${namespaceOf(jwt)}:`, now, tell),
  )

  function identify(ctx: RequestContext): Finding | Promise<Finding> {
    let isRefused = false
    for (const [at, source] of sources.entries()) {
      const found = source(ctx)
      if (found instanceof Promise) return found.then((first) => goOn(ctx, at + 1, first, isRefused))
      if (found.user !== null) return found
      isRefused ||= found.isRefused
    }
    return isRefused ? REFUSED : NOBODY
  }

  async function goOn(ctx: RequestContext, from: number, first: Finding, wasRefused: boolean): Promise<Finding> {
    if (first.user !== null) return first
    let isRefused = wasRefused || first.isRefused
    for (const source of sources.slice(from)) {
      const found = await source(ctx)
      if (found.user !== null) return found
      isRefused ||= found.isRefused
    }
    return isRefused ? REFUSED : NOBODY
  }

  return {
    stage(isRequired) {
      const conclude = (ctx: RequestContext, { user, isRefused }: Finding) => {
        ctx.user = user
        if (!isRequired || user?.isProved === true) return null
        return unauthenticated(ctx, isRefused)
      }
      return (ctx) => {
        const found = identify(ctx)
        return found instanceof Promise ? found.then((later) => conclude(ctx, later)) : conclude(ctx, found)
      }
    },
  }
}

/** RFC 6750 §3: a token that was shown and is not good is told apart from none. */
function unauthenticated(ctx: RequestContext, isRefused: boolean): Reply {
  const error = isRefused ? REFUSED_CREDENTIALS : NO_CREDENTIALS
  ctx.error = error
  return problemReply(error, ctx.id, {}, [
    'WWW-Authenticate',
    isRefused ? 'Bearer realm="weirgate", error="invalid_token"' : 'Bearer realm="weirgate"',
  ])
}

const NO_CREDENTIALS = new GatewayError('unauthenticated', 'This route is for users that prove who they are.')
const REFUSED_CREDENTIALS = new GatewayError('unauthenticated', 'The credentials are expired, unknown or not genuine.')

/** A user named by a field: proved by a known key or by the proxy that wrote it, else claimed. */
function compileHeaderSource({ header, keys, trusted }: HeaderSourceOptions): (ctx: RequestContext) => Finding {
  const nameOfDigest =
    keys === undefined ? null : new Map(Object.entries(keys).map(([name, key]) => [digest(key), name]))
  return (ctx) => {
    if (trusted && !ctx.peerIsTrusted) return NOBODY
    const value = onlyLine(ctx, header)
    if (value === '') return NOBODY
    if (nameOfDigest === null) {
      // A claimed name may be a key that somebody else checks: it is kept as a digest alone.
      const id = trusted ? `${header}:${value}` : `${header}:#${digest(value)}`
      return { user: { id, isProved: trusted, field: header }, isRefused: false }
    }
    // By digest, so that how long it takes says nothing of the keys.
    const name = nameOfDigest.get(digest(value))
    return name === undefined
      ? REFUSED
      : { user: { id: `key:${name}`, isProved: true, field: header }, isRefused: false }
  }
}

const digest = (text: string): string => hash('sha256', text, 'base64url')
