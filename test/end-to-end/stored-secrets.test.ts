// What is stored holds nothing by which somebody could be passed for its user: not on disk, and not on the admin port.

import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'

/** Of a field that the route table names, of one that it does not know, and of a proxy that logs users in. */
const SECRETS = {
  'X-Team-Key': 'zebra-team-key-0123456789',
  'X-Device-Session': 'zebra-device-session-0123456789',
  'X-Forwarded-Access-Token': 'zebra-access-token-0123456789',
}

it('keeps no secret with what selects it, and tells its owners apart all the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-secrets-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const { gateway } = await startEdge({
    routes: ['{path: /*, cache: {scope: public, ttl: 1h}}'],
    more: `
cache: {disk: {path: "${join(folder, 'cache.db')}", max: 16MiB}}
trustedProxies: [127.0.0.0/8]
identity: {user: [{header: x-team-key}]}
`,
    script: (_message, response, count) =>
      void response.setHeader('Vary', 'X-Team-Key, X-Device-Session, X-Plan').end(`answer ${count}`),
  })
  const get = async (headers: Record<string, string>) => {
    const reply = await request(`${gateway.url}/page`, { headers: { Host: 'shop.test', 'X-Plan': 'gold', ...headers } })
    return `${String(reply.headers['x-cache'])} ${reply.text}`
  }
  expect(await get(SECRETS)).toBe('MISS answer 1')
  await until(() => /tier_writes_total\{tier="disk",result="written"\} 1/.test(gateway.gateway.metrics()), 'it on disk')

  const { text } = await request(`${gateway.adminUrl}/api/cache/entry?url=http://shop.test/page`)
  const stored = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'latin1'))
  // What cannot be one is there to be read.
  for (const seen of [text, stored.join('')]) expect(seen).toContain('gold')
  for (const seen of [text, stored.join('')]) expect(seen).not.toContain('zebra')

  expect(await get(SECRETS)).toBe('HIT answer 1')
  for (const [at, name] of Object.keys(SECRETS).entries()) {
    expect(await get({ ...SECRETS, [name]: 'another one of that kind' })).toBe(`MISS answer ${at + 2}`)
  }
})
