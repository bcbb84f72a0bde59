// config/demo.yaml is a route table that loads, and it says what the tour relies on.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'

const file = fileURLToPath(new URL('../../config/demo.yaml', import.meta.url))
const ADDRESSES = { DEMO_PRESENTATION_URL: 'http://127.0.0.1:8000', DEMO_AI_URL: 'http://127.0.0.1:8001' }

function load(env: Record<string, string>) {
  const loaded = loadConfig(readFileSync(file, 'utf8'), file, env)
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.issues))
  return loaded.config
}

describe('the route table of the demo', () => {
  it('loads with nothing but the addresses of the two backends', () => {
    const config = load(ADDRESSES)
    expect(config.listen.address).toEqual({ host: '127.0.0.1', port: 8080 })
    expect(config.admin.listen).toEqual({ host: '127.0.0.1', port: 9090 })
    expect(config.limits['per-client']).toMatchObject({ limit: 60, window: 60_000, key: [{ kind: 'ip' }] })
    expect(config.defaults).toEqual({ upstream: 'presentation', limits: ['per-client'] })
  })

  it('takes ports and limit from the environment', () => {
    const config = load({ ...ADDRESSES, PORT: '0', ADMIN_PORT: '0', RATE_LIMIT_PER_MINUTE: '1000' })
    expect([config.listen.address.port, config.admin.listen.port]).toEqual([0, 0])
    expect(config.limits['per-client']?.limit).toBe(1000)
  })

  it('caches reads of presentations, templates and themes, what the AI makes, and nothing else', () => {
    const cached = load(ADDRESSES).routes.filter(({ cache }) => cache !== undefined)
    expect(cached.map(({ path, methods, cache }) => [path, methods, cache?.ttl?.every])).toEqual([
      ['/api/v1/presentations/*', ['GET', 'HEAD'], 3_600_000],
      ['/api/v1/templates/*', ['GET', 'HEAD'], 600_000],
      ['/api/v1/themes/*', ['GET', 'HEAD'], 600_000],
      ['/api/v1/ai/generate', ['POST'], 3_600_000],
      ['/api/v1/ai/text/*', ['POST'], 1_800_000],
      ['/api/v1/ai/image/*', ['POST'], 7_200_000],
    ])
  })

  it('sends what the AI service answers there, with a minute to think', () => {
    const config = load(ADDRESSES)
    const paths = config.routes.filter(({ upstream }) => upstream === 'ai').map(({ path }) => path)
    expect(paths).toEqual(['/api/v1/ai/generate', '/api/v1/ai/text/*', '/api/v1/ai/image/*', '/debug/calls'])
    expect(config.upstreams['ai']?.timeouts).toMatchObject({ firstByte: 60_000, total: 60_000 })
  })

  it('leaves only the counters without a limit', () => {
    const free = load(ADDRESSES).routes.filter(({ limits }) => limits?.length === 0)
    expect(free.map(({ path }) => path)).toEqual(['/debug/queries', '/debug/calls'])
  })
})
