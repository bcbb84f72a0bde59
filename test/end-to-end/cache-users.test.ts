// Answers kept for each user alone, where the route table says how users are known.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'

const KEYS = `identity:
  user: [{header: x-api-key, keys: {app: aaaaaaaaaaaaaaaa, app2: bbbbbbbbbbbbbbbb}}, {header: x-user}]`

describe('a user who is named by a key', () => {
  it('shares nothing with other users of the same key, who are told apart by what else they show', async () => {
    const { gateway, origin } = await startEdge({
      more: KEYS,
      routes: ['{path: /*, cache: {ttl: 1h, scope: user}}'],
    })
    const ask = async (headers: Record<string, string>) => {
      const answer = await request(`${gateway.url}/x`, { headers })
      return `${String(answer.headers['x-cache'])} ${answer.text}`
    }
    const app = { 'X-Api-Key': 'aaaaaaaaaaaaaaaa' }
    expect(await ask(app)).toBe('MISS answer 1')
    expect(await ask({ ...app, 'X-Other': '1' })).toBe('HIT answer 1')
    expect(await ask({ ...app, Authorization: 'Bearer ann' })).toBe('MISS answer 2')
    expect(await ask({ ...app, Authorization: 'Bearer bob' })).toBe('MISS answer 3')
    expect(await ask({ ...app, Cookie: 'sid=1' })).toBe('MISS answer 4')
    expect(await ask({ 'X-Api-Key': 'bbbbbbbbbbbbbbbb' })).toBe('MISS answer 5')
    expect(await ask({ 'X-User': 'app' })).toBe('MISS answer 6')
    expect(await ask({ 'X-User': 'ann' })).toBe('MISS answer 7')
    expect(await ask({})).toBe('BYPASS answer 8')
    expect(await ask(app)).toBe('HIT answer 1')
    expect(origin.seen).toHaveLength(8)
  })
})

describe('a user of whom a trusted proxy tells', () => {
  it('shares nothing with others whom it has logged in', async () => {
    const { gateway } = await startEdge({
      more: 'trustedProxies: [127.0.0.1]',
      routes: ['{path: /*, cache: {ttl: 1h, scope: user}}'],
    })
    const ask = async (headers: Record<string, string>) => {
      const answer = await request(`${gateway.url}/x`, { headers })
      return `${String(answer.headers['x-cache'])} ${answer.text}`
    }
    expect(await ask({ 'X-Forwarded-User': 'ann' })).toBe('MISS answer 1')
    expect(await ask({ 'X-Forwarded-User': 'ann' })).toBe('HIT answer 1')
    expect(await ask({ 'X-Forwarded-User': 'bob' })).toBe('MISS answer 2')
    expect(await ask({ 'X-Forwarded-User': 'ann', 'X-Forwarded-Groups': 'admins' })).toBe('MISS answer 3')
    expect(await ask({})).toBe('BYPASS answer 4')
  })
})
