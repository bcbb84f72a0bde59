// A target for what changes something, others for what only reads: who sees which method, and what becomes of either without
// the other.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway } from '../support/gateway.ts'
import { type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const gatewayTo = async (targets: readonly string[], primary: string, more = ''): Promise<TestGateway> =>
  closing(
    await startGateway(`
upstreams: {app: {targets: ${JSON.stringify(targets)}, primary: ${primary}, ${more}}}
routes: [{path: /*, upstream: app}]
`),
  )

const named =
  (name: string): Script =>
  (_message, response) =>
    void response.setHeader('X-Name', name).end()

describe('a primary', () => {
  it.each<[string, string]>([
    ['GET', 'reads'],
    ['HEAD', 'reads'],
    ['OPTIONS', 'reads'],
    ['QUERY', 'reads'],
    ['POST', 'writes'],
    ['PUT', 'writes'],
    ['PATCH', 'writes'],
    ['DELETE', 'writes'],
    ['LOCK', 'writes'],
  ])('[RFC 9110 §9.2.1] %s goes to who %s', async (method, name) => {
    const reads = closing(await startOrigin(named('reads')))
    const writes = closing(await startOrigin(named('writes')))
    const gateway = await gatewayTo([reads.url], writes.url)
    for (let i = 0; i < 3; i++) expect((await request(gateway.url, { method })).headers['x-name']).toBe(name)
    expect(gateway.gateway.upstreams()).toMatchObject([
      {
        targets: [
          { url: reads.url, takes: 'reads' },
          { url: writes.url, takes: 'writes' },
        ],
      },
    ])
  })

  it('that is among the targets reads as well', async () => {
    const [reads, both] = [closing(await startOrigin()), closing(await startOrigin())]
    const gateway = await gatewayTo([reads.url, both.url], both.url)
    for (let i = 0; i < 4; i++) await request(gateway.url)
    for (let i = 0; i < 4; i++) await request(gateway.url, { method: 'POST' })
    expect([reads.seen.length, both.seen.length]).toEqual([2, 6])
    expect(gateway.gateway.upstreams()[0]?.targets.map(({ takes }) => takes)).toEqual(['reads', 'all'])
  })

  it('has nobody in its place: what changes something never goes to who reads', async () => {
    const reads = closing(await startOrigin())
    const gateway = await gatewayTo([reads.url], `http://127.0.0.1:${await closedPort()}`, 'retries: 5')
    for (let i = 0; i < 4; i++) {
      for (const method of ['POST', 'PUT', 'DELETE']) {
        expect((await request(gateway.url, { method, body: 'x' })).status).toBe(502)
      }
      expect((await request(gateway.url)).status).toBe(200)
    }
    expect(reads.seen.every(({ method }) => method === 'GET')).toBe(true)
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"degraded"}')
  })

  it("takes nobody's place: what only reads does not go to who writes alone", async () => {
    const writes = closing(await startOrigin())
    const gateway = await gatewayTo([`http://127.0.0.1:${await closedPort()}`], writes.url, 'retries: 5')
    expect((await request(gateway.url)).status).toBe(502)
    expect((await request(gateway.url, { method: 'POST' })).status).toBe(200)
    expect(writes.seen).toHaveLength(1)
  })

  it('passes its failures on, since nobody else may be asked', async () => {
    const reads = closing(await startOrigin())
    const sick = closing(
      await startOrigin(
        (message, response) => void message.resume().on('end', () => response.writeHead(503).end('sick')),
      ),
    )
    const gateway = await gatewayTo([reads.url], sick.url, 'retries: 5')
    expect((await request(gateway.url, { method: 'PUT', body: 'x' })).text).toBe('sick')
    expect([sick.seen.length, reads.seen.length]).toEqual([1, 0])
  })
})
