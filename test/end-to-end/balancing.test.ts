// One upstream with several targets: who gets which request, as the targets themselves see it.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const origins = (count: number, script?: Script): Promise<Origin[]> =>
  Promise.all(Array.from({ length: count }, async () => closing(await startOrigin(script))))

const yamlFor = (targets: readonly unknown[], options: string, more = ''): string => `
upstreams: {app: {targets: ${JSON.stringify(targets)}, ${options}}}
defaults: {upstream: app}
${more}
routes: [{path: /*}, {path: /shops/:shop/*}]
`

const gatewayTo = async (targets: readonly unknown[], options: string, more?: string): Promise<TestGateway> =>
  closing(await startGateway(yamlFor(targets, options, more)))

const counts = (all: readonly Origin[]): number[] => all.map(({ seen }) => seen.length)

/** Places of the origins that have seen requests since. */
async function whoSees(all: readonly Origin[], ask: () => Promise<unknown>): Promise<number[]> {
  const before = counts(all)
  await ask()
  return counts(all).flatMap((count, i) => (count > (before[i] ?? 0) ? [i] : []))
}

describe('targets in turn', () => {
  it('get requests by weight', async () => {
    const all = await origins(3)
    const targets = all.map(({ url }, i) => ({ url, weight: i + 1 }))
    const gateway = await gatewayTo(targets, 'balance: round-robin')
    for (let i = 0; i < 12; i++) expect((await request(gateway.url)).status).toBe(200)
    expect(counts(all)).toEqual([2, 4, 6])
  })

  it('get the rest of those that one refuses, each request once', async () => {
    const all = await origins(2)
    const dead = `http://127.0.0.1:${await closedPort()}`
    const gateway = await gatewayTo([{ url: dead, weight: 8 }, ...all.map(({ url }) => url)], 'retries: 1')
    for (let i = 0; i < 20; i++) {
      expect((await request(gateway.url, { method: 'POST', body: String(i) })).status).toBe(200)
    }
    const bodies = await Promise.all(all.flatMap(({ seen }) => seen.map(({ body }) => body)))
    expect(bodies.map(Number).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i))
  })
})

describe('the target with fewer requests', () => {
  it('gets those that another one has no time for', async () => {
    const [stuck, free] = await Promise.all([startOrigin(() => {}), startOrigin()])
    closing(stuck)
    closing(free)
    const gateway = await gatewayTo([stuck.url, free.url], 'balance: least-requests')
    const hanging: Promise<unknown>[] = []
    while (stuck.seen.length === 0) {
      const asked = request(gateway.url).catch(() => {})
      hanging.push(asked)
      await Promise.race([asked, until(() => stuck.seen.length > 0, 'a request that hangs').catch(() => {})])
    }
    const before = free.seen.length
    for (let i = 0; i < 20; i++) expect((await request(gateway.url)).status).toBe(200)
    expect(counts([stuck, free])).toEqual([1, before + 20])
  })
})

describe('requests with the same key', () => {
  it.each<[string, string, (n: number) => { path: string; headers: Record<string, string> }]>([
    ['header:X-Tenant', '', (n) => ({ path: '/', headers: { 'X-Tenant': `t${n}` } })],
    ['cookie:sid', '', (n) => ({ path: '/', headers: { Cookie: `a=b; sid=s${n}` } })],
    ['path', '', (n) => ({ path: `/${n}?${Math.random()}`, headers: {} })],
    ['url', '', (n) => ({ path: `/?${n}`, headers: {} })],
    ['param:shop', '', (n) => ({ path: `/shops/${n}/things/${Math.random()}`, headers: {} })],
    ['host', '', (n) => ({ path: '/', headers: { Host: `h${n}.test` } })],
    ['ip', 'trustedProxies: [127.0.0.1]', (n) => ({ path: '/', headers: { 'X-Forwarded-For': `192.0.2.${n}` } })],
    [
      'user',
      'identity: {user: [{header: x-user, trusted: true}]}\ntrustedProxies: [127.0.0.1]',
      (n) => ({ path: '/', headers: { 'X-User': `u${n}` } }),
    ],
  ])('go to the same target: %s', async (key, more, requestOf) => {
    const all = await origins(3)
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      `balance: "hash:${key}"`,
      more,
    )
    const homes = new Set<number>()
    for (let n = 1; n <= 16; n++) {
      const seen = await whoSees(all, async () => {
        for (let i = 0; i < 3; i++) {
          const { path, headers } = requestOf(n)
          expect((await request(gateway.url + path, { headers })).status).toBe(200)
        }
      })
      expect(seen).toHaveLength(1)
      homes.add(seen[0] as number)
    }
    expect(homes.size).toBeGreaterThan(1)
  })

  it('go in turn where they have none', async () => {
    const all = await origins(2)
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'balance: "hash:header:x-tenant"',
    )
    for (let i = 0; i < 8; i++) await request(gateway.url)
    expect(counts(all)).toEqual([4, 4])
  })

  it('stay where they are when another target leaves', async () => {
    const all = await origins(4)
    const urls = all.map(({ url }) => url)
    const gateway = await gatewayTo(urls, 'balance: hash:path')
    const homeOf = (n: number) => whoSees(all, () => request(`${gateway.url}/${n}`))
    const before: number[][] = []
    for (let n = 0; n < 40; n++) before.push(await homeOf(n))
    gateway.rewrite(yamlFor(urls.slice(0, 3), 'balance: hash:path'))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    for (let n = 0; n < 40; n++) {
      const home = await homeOf(n)
      const mayBe = before[n]?.[0] === 3 ? [[0], [1], [2]] : [before[n]]
      expect(mayBe).toContainEqual(home)
    }
  })

  it('go to another target while theirs has more than its share', async () => {
    const all = await origins(3, () => {})
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'balance: hash:path',
    )
    const asked = Array.from({ length: 30 }, () => request(`${gateway.url}/popular`).catch(() => {}))
    await until(() => counts(all).reduce((sum, count) => sum + count, 0) === 30, 'all to be on their way')
    // A quarter more than ten, rounded up.
    expect(Math.max(...counts(all))).toBeLessThanOrEqual(13)
    expect(Math.min(...counts(all))).toBeGreaterThan(0)
    await gateway.close()
    await Promise.all(asked)
  })
})

describe('weights', () => {
  it('change without what is stored being asked for again', async () => {
    const all = await origins(2)
    const yaml = (weight: number): string => `
upstreams: {app: {targets: [${all[0]?.url}, {url: "${all[1]?.url}", weight: ${weight}}]}}
routes: [{path: /*, upstream: app, cache: {ttl: 1h}}]
`
    const gateway = closing(await startGateway(yaml(1)))
    await request(gateway.url)
    gateway.rewrite(yaml(5))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect((await request(gateway.url)).headers['x-cache']).toBe('HIT')
  })
})
