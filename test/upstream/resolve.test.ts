import { describe, expect, it } from 'vitest'
import { Alarms } from '../../src/core/alarms.ts'
import { type Address, type Lookup, Resolution } from '../../src/upstream/resolve.ts'

const V4 = { address: '192.0.2.1', family: 4 }
const V6 = { address: '2001:db8::1', family: 6 }

function start() {
  const asked: ((error: Error | null, addresses: readonly Address[]) => void)[] = []
  const told: string[] = []
  let changes = 0
  const lookup: Lookup = (_host, done) => void asked.push(done)
  const resolution = new Resolution({
    host: 'backend.test',
    intervalMs: 3_600_000,
    lookup,
    alarms: new Alarms(),
    onChange: () => void changes++,
    tell: (event) => void told.push(event),
  })
  /** What net.connect is told. all: it asks for all addresses. */
  const connect = (all = true) =>
    new Promise<unknown>((resolve) => {
      resolution.lookup('backend.test', { all }, (error, address) => resolve(error?.message ?? address))
    })
  return {
    resolution,
    connect,
    told,
    asked,
    get changes() {
      return changes
    },
    answer: (...addresses: readonly Address[]) => asked.shift()?.(null, addresses),
    fail: (why: string) => asked.shift()?.(new Error(why), []),
  }
}

describe('the addresses of a name', () => {
  it('are asked for once by all who wait', async () => {
    const { connect, asked, answer } = start()
    const waiting = [connect(), connect(), connect(false)]
    expect(asked).toHaveLength(1)
    answer(V4, V6)
    expect(await Promise.all(waiting)).toEqual([[V4, V6], [V6, V4], V4.address])
    expect(asked).toHaveLength(0)
  })

  it('are asked for again by the next one, where there are none', async () => {
    const { connect, answer, fail, told, resolution } = start()
    const first = connect()
    fail('ENOTFOUND')
    expect(await first).toBe('ENOTFOUND')
    const second = connect()
    answer()
    expect(await second).toBe('no address of backend.test')
    expect([told, resolution.failures]).toEqual([['unresolved'], 2])
    const third = connect()
    answer(V6)
    expect(await third).toEqual([V6])
    expect(told).toEqual(['unresolved', 'resolved'])
  })

  it('are the same in any order, and with the interface of a link-local one', async () => {
    const each = start()
    const link = { address: 'fe80::1%eth0', family: 6 }
    const first = each.connect()
    each.answer(V4, link)
    await first
    each.resolution.ring()
    each.answer(link, V4)
    expect(each.changes).toBe(0)
    expect([each.resolution.has('fe80::1'), each.resolution.has(V6.address)]).toEqual([true, false])
    each.resolution.ring()
    each.answer(V6)
    expect(each.changes).toBe(1)
    expect([each.resolution.has(V4.address), each.resolution.has(V6.address)]).toEqual([false, true])
    each.resolution.close()
  })

  it('are waited for by so many connections at most', async () => {
    const { connect, answer } = start()
    const waiting = Array.from({ length: 1024 }, () => connect())
    expect(await connect()).toBe('too many wait for its addresses')
    answer(V4)
    expect(await Promise.all(waiting)).toEqual(Array.from({ length: 1024 }, () => [V4]))
  })
})
