// What an upstream has asked of one instance, told to all that share a Redis.
//
//   <ns>:cool-down:{<digest>}   ends when the cool-down does; for who comes later, or has missed the news
//   <ns>:cool-downs             channel: `<digest> <milliseconds> <who tells it>`
//
// Times are lengths, so clocks need not agree. Nothing waits for any of this, and nothing depends on it: without Redis each
// instance hears it from the upstream itself.

import { hash, randomBytes } from 'node:crypto'
import type { RedisSubscriber } from '../core/redis-subscriber.ts'
import type { RedisLink } from '../core/redis.ts'

export interface SharedCoolDowns {
  /** Tells the others that a target is to be left alone. target: any text that stands for it everywhere. */
  tell(target: string, restMs: number): void
  /** Calls rest with what others tell of it, or have told before. Answers what ends that. */
  hear(target: string, rest: (restMs: number) => void): () => void
  close(): Promise<void>
}

export interface SharedCoolDownsSetup {
  readonly link: RedisLink
  readonly subscribe: (
    channels: readonly [string, ...string[]],
    onMessage: (channel: string, message: Buffer) => void,
  ) => RedisSubscriber
  readonly namespace: string
}

const TELL = `
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
redis.call('PUBLISH', ARGV[2], ARGV[3])`

export function createSharedCoolDowns({ link, subscribe, namespace }: SharedCoolDownsSetup): SharedCoolDowns {
  const channel = `${namespace}:cool-downs`
  const self = randomBytes(6).toString('base64url')
  const tell = link.script(TELL)
  const hearers = new Map<string, Set<(restMs: number) => void>>()
  let subscriber: RedisSubscriber | null = null

  const digestOf = (target: string): string => hash('sha256', target, 'base64url')
  const keyOf = (digest: string): string => `${namespace}:cool-down:{${digest}}`

  function pass(digest: string, restMs: number): void {
    if (!(restMs > 0)) return
    for (const rest of hearers.get(digest) ?? []) rest(restMs)
  }

  /** What was told while nobody listened here. */
  function catchUp(digest: string): void {
    link.command('PTTL', keyOf(digest)).then(
      (leftMs) => pass(digest, Number(leftMs)),
      () => {},
    )
  }

  function open(): RedisSubscriber {
    const opened = subscribe([channel], (_channel, message) => {
      const [digest = '', restMs, who] = message.toString().split(' ')
      if (who !== self) pass(digest, Number(restMs))
    })
    for (const connection of [opened, link]) {
      connection.onChange((isUp) => {
        if (isUp) for (const digest of hearers.keys()) catchUp(digest)
      })
    }
    return opened
  }

  return {
    tell(target, restMs) {
      const digest = digestOf(target)
      const wholeMs = Math.ceil(restMs)
      tell([keyOf(digest)], [wholeMs, channel, `${digest} ${wholeMs} ${self}`]).catch(() => {})
    },
    hear(target, rest) {
      subscriber ??= open()
      const digest = digestOf(target)
      const known = hearers.get(digest) ?? new Set()
      hearers.set(digest, known.add(rest))
      catchUp(digest)
      return () => {
        known.delete(rest)
        if (known.size === 0 && hearers.get(digest) === known) hearers.delete(digest)
      }
    },
    async close() {
      hearers.clear()
      await subscriber?.close()
    },
  }
}
