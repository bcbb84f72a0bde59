// What a link and a subscriber have in common: they tell when they are up, to whoever listens or waits for it.

import { type KnownAddress } from './redis-client.ts'
import { RedisError } from './redis-reply.ts'
import { parseRedisUrl } from './redis-url.ts'

export interface RedisConnection {
  /** True when all of it is up. */
  readonly isUp: boolean
  /** Calls the listener after each change of what is up; answers a function that ends that. */
  onChange(listener: (isUp: boolean) => void): () => void
  /** Resolves with isUp when that turns true, or after maxMs. For the start: afterwards ask isUp. */
  whenUp(maxMs: number): Promise<boolean>
  /** Looks at once, instead of with the next probe: another connection has seen a change. */
  look(): void
  /** Ends the connection and all timers. Commands in flight fail with redis_lost. */
  close(): Promise<void>
}

export abstract class Connection implements RedisConnection {
  readonly #listeners = new Set<(isUp: boolean) => void>()
  /** Ends of whenUp. */
  readonly #waiting = new Set<() => void>()
  #isClosed = false

  abstract get isUp(): boolean
  abstract look(): void
  protected abstract end(): Promise<void>

  onChange(listener: (isUp: boolean) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  whenUp(maxMs: number): Promise<boolean> {
    if (this.isUp || this.#isClosed) return Promise.resolve(this.isUp)
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve(this.isUp)
      }
      const timer = setTimeout(done, maxMs)
      this.#waiting.add(done)
    })
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.end()
    this.#listeners.clear()
    for (const done of this.#waiting) done()
  }

  protected changed(): void {
    const { isUp } = this
    if (isUp) for (const done of this.#waiting) done()
    for (const listener of this.#listeners) listener(isUp)
  }
}

/** Throws when the URL makes no sense. */
export function addressOf(url: string): KnownAddress {
  const address = parseRedisUrl(url)
  if (address.kind === 'invalid') throw new RedisError('redis_down', `not a Redis URL: ${address.cure}`)
  return address
}

/** Errors of ioredis for people, without secrets. */
export const wordsFor =
  ({ password }: KnownAddress) =>
  (error: Error): string => {
    // Redis repeats the arguments of a command that it does not know, and AUTH may be one.
    const text = error.message.replace(/,? with args beginning with.*/s, '').slice(0, 200)
    return password === '' ? text : text.replaceAll(password, '***')
  }
