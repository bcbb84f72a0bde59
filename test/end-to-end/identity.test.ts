// Who a request comes from: what proves it, what does not, and what becomes of each where a route is for users only.

import { type KeyObject, generateKeyPairSync, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT, exportJWK } from 'jose'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import { type Edge, startEdge } from '../support/edge.ts'
import { exchange, get } from '../support/exchange.ts'
import { startOrigin } from '../support/origin.ts'

const SECRET = 'a secret of thirty-two bytes and more'
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 })

const keySet = async (key: KeyObject, kid: string): Promise<string> =>
  JSON.stringify({ keys: [{ ...(await exportJWK(key)), kid }] })

interface Token {
  readonly alg?: string
  readonly kid?: string
  readonly claims?: Record<string, unknown>
  readonly expires?: string | null
}

function sign(key: KeyObject | Uint8Array, { alg = 'RS256', kid = 'one', claims = {}, expires = '5m' }: Token = {}) {
  const token = new SignJWT({ sub: 'alice', ...claims }).setProtectedHeader({ alg, kid })
  return (expires === null ? token : token.setExpirationTime(expires)).sign(key)
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

interface Known extends Edge {
  get(headers?: Record<string, string>): Promise<Answer>
  /** The user whom the log names for the latest request. */
  lastUser(): Promise<unknown>
}

/** A gateway whose one route is for users only, with plain names in the log. */
async function startKnown(user: string, more = ''): Promise<Known> {
  const edge = await startEdge({
    routes: ['{path: /*, auth: required}', '{path: /open/*}'],
    more: `log: {userId: plain}\nidentity: {user: [${user}]}\n${more}`,
  })
  let asked = 0
  return {
    ...edge,
    get(headers = {}) {
      asked++
      return request(`${edge.gateway.url}/x`, { headers })
    },
    lastUser: async () => (await edge.gateway.requestLines(asked)).at(-1)?.['user_id'],
  }
}

function fileWith(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'keys.json')
  writeFileSync(file, text)
  return file
}

describe('a token of a key set', () => {
  const startWithFile = async (more = '') =>
    startKnown(`{jwt: {jwks: "file:${fileWith(await keySet(rsa.publicKey, 'one'))}"${more}}}`)

  it('names the user, and lets them in', async () => {
    const known = await startWithFile()
    const token = await sign(rsa.privateKey)
    expect((await known.get(bearer(token))).status).toBe(200)
    expect((await known.get(bearer(token))).status).toBe(200)
    expect(await known.lastUser()).toBe('jwt:alice')
    expect(known.origin.seen[0]?.headers['authorization']).toBe(`Bearer ${token}`)
  })

  it('lets nobody in without one, and says how to ask', async () => {
    const known = await startWithFile()
    const answer = await known.get()
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="weirgate"')
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'unauthenticated', status: 401 })
    expect(known.origin.seen).toEqual([])
  })

  it.each<[string, () => Promise<string> | string]>([
    ['of another key', () => sign(stranger.privateKey)],
    ['of an unknown key', () => sign(rsa.privateKey, { kid: 'two' })],
    ['that is expired', () => sign(rsa.privateKey, { expires: '-5m' })],
    ['without a user', () => sign(rsa.privateKey, { claims: { sub: '' } })],
    ['with an algorithm that is not listed', () => sign(rsa.privateKey, { alg: 'RS512' })],
    // RFC 8725 §2.1: the public key, which everybody has, taken for a secret.
    ['signed with the public key', () => sign(rsa.publicKey.export({ type: 'spki', format: 'der' }), { alg: 'HS256' })],
    ['that is not signed', () => `${encode({ alg: 'none' })}.${encode({ sub: 'alice' })}.`],
    ['that is no token', () => 'x.y.z'],
  ])('refuses one %s', async (_what, make) => {
    const known = await startWithFile()
    const token = await make()
    for (let again = 0; again < 2; again++) {
      const answer = await known.get(bearer(token))
      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="weirgate", error="invalid_token"')
    }
    expect(known.origin.seen).toEqual([])
  })

  it('holds it to issuer and audience where they are named', async () => {
    const known = await startWithFile(', issuer: us, audience: shop')
    expect((await known.get(bearer(await sign(rsa.privateKey)))).status).toBe(401)
    const good = await sign(rsa.privateKey, { claims: { iss: 'us', aud: ['shop', 'x'] } })
    expect((await known.get(bearer(good))).status).toBe(200)
  })

  it('is anonymous with a bad one where the route asks for nobody', async () => {
    const { gateway } = await startWithFile()
    const answer = await request(`${gateway.url}/open/x`, { headers: bearer(await sign(stranger.privateKey)) })
    expect(answer.status).toBe(200)
    expect((await gateway.requestLines(1))[0]).toMatchObject({ user_id: null })
  })

  it.each(['/x;a=1', '/x/y', '/x;/y', '/;a/x/y', '/x%3Ba/y', '/;/x', '/x;a/;b/y'])(
    'is needed for %s as well, which servlet containers take for a path below /x',
    async (path) => {
      const { gateway, origin } = await startEdge({
        routes: ['{path: /x/*, auth: required}', '{path: /*}'],
        more: `identity: {user: [{jwt: {secret: "${SECRET}"}}]}`,
      })
      expect((await exchange(gateway.port, get(path))).status).toBe(401)
      expect(origin.seen).toEqual([])
      // Upstream it goes as it is.
      const token = await sign(Buffer.from(SECRET), { alg: 'HS256' })
      expect((await exchange(gateway.port, get(path, [`Authorization: Bearer ${token}`]))).status).toBe(200)
      expect(origin.seen.map(({ url }) => url)).toEqual([path])
    },
  )

  it('is not one of two, of which the upstream may go by either', async () => {
    const { gateway, origin } = await startWithFile()
    const lines = [bearer(await sign(rsa.privateKey)), bearer(await sign(stranger.privateKey)), bearer('')]
    for (const [one, other] of [
      [0, 1],
      [1, 0],
      [2, 0],
    ] as const) {
      const both = [lines[one], lines[other]].map((line) => `Authorization: ${line?.authorization ?? ''}`)
      const { status, body } = await exchange(gateway.port, get('/open/x', both))
      expect([status, body]).toEqual([400, expect.stringContaining('may come only once')])
    }
    expect(origin.seen).toEqual([])
  })

  it('takes the user from another claim, and the token from another field', async () => {
    const known = await startWithFile(', claim: tenant, header: X-Token')
    expect((await known.get({ 'x-token': await sign(rsa.privateKey, { claims: { tenant: 7 } }) })).status).toBe(200)
    expect(await known.lastUser()).toBe('jwt:7')
  })
})

describe('keys that are fetched', () => {
  it('are asked for once, and again for a token of a new key', async () => {
    const sets = await startOrigin()
    onTestFinished(() => sets.close())
    sets.answer((_message, response) => void keySet(rsa.publicKey, 'one').then((set) => response.end(set)))
    const known = await startKnown(`{jwt: {jwks: "${sets.url}/keys"}}`)
    const tokens = await Promise.all(['alice', 'bob'].map((sub) => sign(rsa.privateKey, { claims: { sub } })))
    for (const token of tokens) expect((await known.get(bearer(token))).status).toBe(200)
    expect(sets.seen.length).toBe(1)
  })

  it('let nobody in while they cannot be had, and those they prove as soon as they can', async () => {
    const sets = await startOrigin((_message, response) => void response.writeHead(500).end())
    onTestFinished(() => sets.close())
    const known = await startKnown(`{jwt: {jwks: "${sets.url}/keys?key=s3cret"}}`)
    const token = await sign(rsa.privateKey)
    expect((await known.get(bearer(token))).status).toBe(401)
    expect((await known.get(bearer(token))).status).toBe(401)
    const told = known.gateway.log.filter(({ level }) => level === 'WARNING')
    const reason = expect.stringContaining('200 OK')
    const message = 'Keys of tokens cannot be had, so tokens are refused'
    expect(told).toEqual([
      { timestamp: expect.anything(), level: 'WARNING', keys: `${sets.url}/keys`, reason, message },
    ])
    sets.answer((_message, response) => void keySet(rsa.publicKey, 'one').then((set) => response.end(set)))
    expect((await known.get(bearer(token))).status).toBe(200)
  })
})

describe('a token of a secret', () => {
  it('lets in who has one', async () => {
    const known = await startKnown(`{jwt: {secret: ${SECRET}}}`)
    expect((await known.get(bearer(await sign(Buffer.from(SECRET), { alg: 'HS256' })))).status).toBe(200)
    const other = Buffer.from(randomUUID() + randomUUID())
    expect((await known.get(bearer(await sign(other, { alg: 'HS256' })))).status).toBe(401)
  })
})

describe('an API key', () => {
  it('is shown to nobody', async () => {
    const { gateway } = await startKnown('{header: X-Api-Key, keys: {alice: "0123456789abcdef"}}')
    const { text } = await request(`${gateway.adminUrl}/api/config`)
    expect(text).toContain('alice')
    expect(text).not.toContain('0123456789abcdef')
  })

  it('names the user whose it is', async () => {
    const known = await startKnown('{header: X-Api-Key, keys: {alice: "0123456789abcdef", bob: "fedcba9876543210"}}')
    expect((await known.get({ 'x-api-key': 'fedcba9876543210' })).status).toBe(200)
    expect(await known.lastUser()).toBe('key:bob')
    expect((await known.get({ 'x-api-key': '0123456789abcdeF' })).status).toBe(401)
    expect((await known.get()).status).toBe(401)
  })

  it('that nobody has listed is a claim: it tells users apart, and opens nothing', async () => {
    const known = await startKnown('{header: X-Api-Key}')
    const { gateway } = known
    expect((await known.get({ 'x-api-key': 'some key' })).status).toBe(401)
    await request(`${gateway.url}/open/x`, { headers: { 'x-api-key': 'some key' } })
    const [, line] = await gateway.requestLines(2)
    expect(line?.['user_id']).toMatch(/^x-api-key:#[\w-]{43}$/)
  })
})

describe('a name that a proxy writes', () => {
  it('counts where the proxy is trusted', async () => {
    const known = await startKnown('{header: X-User, trusted: true}', 'trustedProxies: [127.0.0.1]')
    expect((await known.get({ 'x-user': 'alice' })).status).toBe(200)
    expect(await known.lastUser()).toBe('x-user:alice')
  })

  it('is nobody where it is not', async () => {
    const known = await startKnown('{header: X-User, trusted: true}', 'trustedProxies: [192.0.2.1]')
    expect((await known.get({ 'x-user': 'alice' })).status).toBe(401)
  })
})

describe('several sources', () => {
  it('count in their order, and a bad token gives way to a good key', async () => {
    const known = await startKnown(`{jwt: {secret: ${SECRET}}}, {header: X-Api-Key, keys: {alice: "0123456789abcdef"}}`)
    const key = { 'x-api-key': '0123456789abcdef' }
    expect((await known.get({ ...key, ...bearer(await sign(Buffer.from(SECRET), { alg: 'HS256' })) })).status).toBe(200)
    expect(await known.lastUser()).toBe('jwt:alice')
    expect((await known.get({ ...key, ...bearer('x.y.z') })).status).toBe(200)
    expect(await known.lastUser()).toBe('key:alice')
  })
})

describe('what is cached', () => {
  const startCaching = (user: string, cache: string) =>
    startEdge({ routes: [`{path: /*, cache: {ttl: 1h, ${cache}}}`], more: `identity: {user: [${user}]}` })
  const word = async (answer: Promise<Answer>) => (await answer).headers['x-cache']

  it('for a user who is proved is theirs with every token they have, and nobody else is given it', async () => {
    const { gateway, origin } = await startCaching(`{jwt: {secret: ${SECRET}}}`, 'scope: user')
    const tokenOf = (sub: string, jti: string) => sign(Buffer.from(SECRET), { alg: 'HS256', claims: { sub, jti } })
    const get = async (token: string) => word(request(`${gateway.url}/x`, { headers: bearer(token) }))
    expect(await get(await tokenOf('alice', 'one'))).toBe('MISS')
    expect(await get(await tokenOf('alice', 'two'))).toBe('HIT')
    expect(await get(await tokenOf('bob', 'one'))).toBe('MISS')
    const forged = await sign(Buffer.from(randomUUID() + randomUUID()), { alg: 'HS256' })
    expect(await get(forged)).toBe('MISS')
    expect(origin.seen.length).toBe(3)
  })

  describe('for a user', () => {
    const OTHER_SECRET = `${SECRET}, another`
    const [one, other] = [SECRET, OTHER_SECRET].map((secret) => `{jwt: {secret: "${secret}"}}`)
    const alice = (secret: string, iss = 'a') =>
      sign(Buffer.from(secret), { alg: 'HS256', claims: { iss, jti: randomUUID() } })
    const ask = async (edge: Edge, token: string) => word(request(`${edge.gateway.url}/x`, { headers: bearer(token) }))

    it('is not given to one of the same name whom another issuer names', async () => {
      const edge = await startCaching(`${one}, ${other}`, 'scope: user')
      expect(await ask(edge, await alice(SECRET))).toBe('MISS')
      expect(await ask(edge, await alice(OTHER_SECRET))).toBe('MISS')
      expect(await ask(edge, await alice(SECRET))).toBe('HIT')
      expect(await ask(edge, await alice(OTHER_SECRET))).toBe('HIT')
    })

    it.each([
      ['another key', other, OTHER_SECRET, 'MISS'],
      ['another issuer', `{jwt: {secret: "${SECRET}", issuer: b}}`, SECRET, 'MISS'],
      ['the same, and found', one, SECRET, 'HIT'],
    ])('is looked for anew after a reload by %s', async (_what, source, secret, then) => {
      const edge = await startCaching(one ?? '', 'scope: user')
      expect(await ask(edge, await alice(SECRET))).toBe('MISS')
      edge.gateway.rewrite(
        `upstreams: {origin: {targets: [${edge.origin.url}]}}\ndefaults: {upstream: origin}\nidentity: {user: [${source}]}\nroutes: [{path: /*, cache: {ttl: 1h, scope: user}}]`,
      )
      expect(await edge.gateway.gateway.reload()).toMatchObject({ ok: true })
      expect(await ask(edge, await alice(secret, 'b'))).toBe(then)
    })
  })

  it('is not shared with who shows a field by which users are known', async () => {
    const { gateway, origin } = await startCaching('{header: X-Tenant-Badge}', '')
    const get = (headers: Record<string, string>) => word(request(`${gateway.url}/x`, { headers }))
    expect(await get({ 'x-tenant-badge': 'alice' })).toBe('MISS')
    expect(await get({})).toBe('MISS')
    expect(await get({ 'x-tenant-badge': 'alice' })).toBe('BYPASS')
    expect(await get({})).toBe('HIT')
    expect(origin.seen.length).toBe(3)
  })
})

describe('the log', () => {
  it('tells users apart without naming them, unless it is told to', async () => {
    const { gateway } = await startEdge({ more: `identity: {user: [{header: X-User}]}` })
    for (const user of ['alice', 'bob', 'alice']) await request(gateway.url, { headers: { 'x-user': user } })
    const [first, second, third] = (await gateway.requestLines(3)).map((line) => line['user_id'])
    expect(first).toMatch(/^[\w-]{22}$/)
    expect(second).not.toBe(first)
    expect(third).toBe(first)
  })
})

const encode = (part: unknown): string => Buffer.from(JSON.stringify(part)).toString('base64url')
