// What is sent to Redis, what comes back, and what its refusals tell.

export type RedisArgument = string | Buffer | number
/** Texts come as buffers, exactly as stored. */
export type RedisReply = Buffer | number | null | readonly RedisReply[]
export type RedisCommand = readonly [name: string, ...args: RedisArgument[]]

/** redis_down: not sent, since there is no connection, or the breaker is open. redis_lost: the connection broke before the
 *  reply. redis_timeout: no reply by the deadline. redis_error: the server said no. redis_overload: not sent, since too much
 *  is in flight. Lost or late, the command may have been carried out all the same. */
export type RedisErrorCode = 'redis_down' | 'redis_lost' | 'redis_timeout' | 'redis_error' | 'redis_overload'

export class RedisError extends Error {
  readonly code: RedisErrorCode
  /** The first word of the server's refusal, as WRONGTYPE; null when it was not the server. */
  readonly refusal: string | null

  constructor(code: RedisErrorCode, detail: string, refusal: string | null = null) {
    super(`${code}: ${detail}`)
    this.name = 'RedisError'
    this.code = code
    this.refusal = refusal
  }
}

/** The server has answered, with a no. */
export const isRefusal = (error: unknown): error is Error => error instanceof Error && error.name === 'ReplyError'

/** Refusals that say that the server cannot serve. Redis 6.2 puts those of a script's commands behind its own words. */
const UNWELL = /(?:^|: -?)(?:LOADING|READONLY|CLUSTERDOWN|OOM|BUSY|MASTERDOWN|MISCONF|NOREPLICAS|NOAUTH|TRYAGAIN) /

/** True where the server cannot serve; false where it only refuses this command. */
export const isUnwell = (refusal: Error): boolean => UNWELL.test(refusal.message)

/** True where a server of a cluster sends the caller to another. */
export const isRedirect = (refusal: Error): boolean => /^(?:MOVED|ASK) /.test(refusal.message)

export function bytesOf(args: readonly RedisArgument[]): number {
  let bytes = 0
  for (const arg of args) bytes += typeof arg === 'number' ? 8 : Buffer.byteLength(arg)
  return bytes
}
