import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { configJsonSchema } from '../../src/config/json-schema.ts'

const committed: unknown = JSON.parse(
  readFileSync(new URL('../../config/weirgate.schema.json', import.meta.url), 'utf8'),
)

// What an editor does with the schema: an independent reading of it, here by zod.
const editor = z.fromJSONSchema(configJsonSchema() as Parameters<typeof z.fromJSONSchema>[0])

const upstreams = { app: { targets: ['http://127.0.0.1:8000'] } }
const withRoute = (route: unknown) => ({ upstreams, routes: [route] })

describe('the JSON Schema', () => {
  it('is the committed config/weirgate.schema.json; npm run schema writes it anew', () => {
    expect(committed).toEqual(configJsonSchema())
  })

  it.each([
    ['a route with its path', withRoute({ path: '/a' })],
    ['methods in upper case', withRoute({ path: '/a', methods: ['GET', 'POST'] })],
    ['a duration', withRoute({ path: '/a', cache: { ttl: '1h30m' } })],
    ['a duration per status', withRoute({ path: '/a', cache: { ttl: { 200: '1h' } } })],
    ['a number from the environment', withRoute({ path: '/a', retries: '${RETRIES:-2}' })],
    ['a duration from the environment', withRoute({ path: '/a', cache: { ttl: '${TTL}' } })],
    ['health switched off', { ...withRoute({ path: '/a' }), health: false }],
  ])('lets pass %s', (_what, document) => {
    expect(editor.safeParse(document).success).toBe(true)
  })

  it.each([
    ['a route without its path', withRoute({ upstream: 'app' })],
    ['an unknown option', withRoute({ path: '/a', cash: {} })],
    ['an option that is not supported yet', { ...withRoute({ path: '/a' }), listen: { http2: true } }],
    ['an unknown option within one of two forms', withRoute({ path: '/a', cache: { terminal: { last: 'x' } } })],
    ['a bare number for a duration', withRoute({ path: '/a', cache: { ttl: 30 } })],
    ['a number out of range', withRoute({ path: '/a', retries: 99 })],
    ['an unknown method', withRoute({ path: '/a', methods: ['GTE'] })],
    ['a table without upstreams', { routes: [{ path: '/a' }] }],
    ['a limit without its number', { ...withRoute({ path: '/a' }), limits: { a: { window: '1m' } } }],
  ])('marks %s', (_what, document) => {
    expect(editor.safeParse(document).success).toBe(false)
  })

  it('names no host', () => {
    expect(configJsonSchema()).toMatchObject({ $id: 'urn:weirgate:route-table' })
  })
})
