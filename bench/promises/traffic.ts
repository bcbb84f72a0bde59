// What clients of a Redis send it, by connection: all of it, also what they send by the clock.

import { createConnection } from 'node:net'
import type { RedisServer } from '../../test/support/redis.ts'

export interface Traffic {
  /** Commands so far of each connection that has this name now; those of scripts are Redis' own. */
  readonly of: (name: string) => Promise<number[]>
  readonly close: () => void
}

export async function watchTraffic(redis: RedisServer): Promise<Traffic> {
  const counts = new Map<string, number>()
  const socket = createConnection(redis.port, '127.0.0.1')
  let rest = ''
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.setEncoding('latin1').on('data', (text: string) => {
      const lines = (rest + text).split('\r\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        if (line === '+OK') resolve()
        const [, address] = /^\+[\d.]+ \[\d+ ([\d.]+:\d+)\]/.exec(line) ?? []
        if (address !== undefined) counts.set(address, (counts.get(address) ?? 0) + 1)
      }
    })
    socket.write('MONITOR\r\n')
  })
  return {
    async of(name) {
      const list = await redis.ask('CLIENT', 'LIST')
      const named = list.split('\n').filter((line) => line.includes(` name=${name} `))
      return named.map((line) => counts.get(/ addr=(\S+)/.exec(line)?.[1] ?? '') ?? 0)
    },
    close: () => void socket.destroy(),
  }
}
