// The printed page: it fits a screen, and what it tells a newcomer to type is answered by the services behind it.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAiBackend } from '../../src/demo/ai.ts'
import type { AiBackend } from '../../src/demo/ai.ts'
import { startPresentationBackend } from '../../src/demo/presentation.ts'
import type { PresentationBackend } from '../../src/demo/presentation.ts'
import { tourText } from '../../src/demo/tour.ts'

const GATEWAY = 'http://127.0.0.1:65535'
const ADMIN = 'http://127.0.0.1:65534'
const text = tourText(GATEWAY, ADMIN)

/** The curl commands of the page, in order. */
const commands = [...text.replaceAll('\\\n', ' ').matchAll(/curl ([^;\n]+)/g)].map(([, words]) => {
  const command = words as string
  const headers = [...command.matchAll(/-H '([^:']+): ([^']+)'/g)].map(
    ([, name, value]) => [name, value] as [string, string],
  )
  const body = /-d '([^']+)'/.exec(command)?.[1]
  return {
    url: /http:\S+/.exec(command)?.[0] ?? '',
    method: body !== undefined ? 'POST' : command.includes(' -I ') ? 'HEAD' : 'GET',
    headers,
    body,
  }
})

describe('the tour', () => {
  let presentation: PresentationBackend
  let ai: AiBackend
  beforeAll(async () => {
    presentation = await startPresentationBackend({ delayMs: { min: 0, max: 0 } })
    ai = await startAiBackend({ delayMs: 0 })
  })
  afterAll(async () => {
    await Promise.all([presentation.close(), ai.close()])
  })

  it('fits one screen', () => {
    const lines = text.trimEnd().split('\n')
    expect(lines.length).toBeLessThanOrEqual(45)
    expect(lines.filter((line) => line.length > 120)).toEqual([])
  })

  it('has a command for everything it promises to show', () => {
    expect(commands.map(({ method, url }) => `${method} ${url.replace(GATEWAY, '').replace(ADMIN, 'admin')}`)).toEqual([
      'GET /api/v1/presentations',
      'HEAD /api/v1/presentations',
      'GET /debug/queries',
      'GET /api/v1/presentations',
      'GET /api/v1/users/me',
      'POST /api/v1/ai/generate',
      'POST /api/v1/ai/generate',
      'GET /debug/calls',
      'GET admin/api/limits/ai-tokens',
      'POST admin/api/explain',
      'POST admin/api/cache/purge',
      'POST /api/v1/presentations',
      'GET /health',
      'GET admin/api/stats',
      'GET admin/metrics',
      'GET /api/v1/themes',
      'GET /api/v1/themes',
    ])
  })

  it.each(commands.filter(({ url }) => url.startsWith(GATEWAY)))('$method $url is answered well', async (command) => {
    const { url, method, headers, body } = command
    const backend = url.includes('/ai/') || url.endsWith('/debug/calls') ? ai : presentation
    const answer = await fetch(url.replace(GATEWAY, backend.url), {
      method,
      headers,
      ...(body !== undefined && { body }),
    })
    expect([200, 201]).toContain(answer.status)
    await answer.text()
  })

  it.each(commands.filter(({ body }) => body !== undefined))(
    '$method $url sends JSON and says so',
    ({ headers, body }) => {
      expect(() => JSON.parse(body ?? '') as unknown).not.toThrow()
      expect(headers).toContainEqual(['Content-Type', 'application/json'])
    },
  )
})
