// Which lines of several connections become one.

import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { gatherNews } from '../../src/plan/redis-news.ts'
import { listen } from '../support/redis-link.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const of = (redis: string, server = 'redis://a:1') => ({ redis, server, reason: `as ${redis} saw it` })

it('is one line for all that is lost within a second, with the first reason', () => {
  const { lines, log } = listen()
  const news = gatherNews(log)
  for (const redis of ['limits', 'feed', 'feed', 'cache']) {
    news.warn(of(redis), 'Redis is down')
    vi.advanceTimersByTime(200)
  }
  expect(lines).toEqual([])
  vi.advanceTimersByTime(200)
  const fields = { redis: 'cache, feed, limits', server: 'redis://a:1', reason: 'as limits saw it' }
  expect(lines).toEqual([{ level: 'warn', message: 'Redis is down', fields }])
  news.info({ redis: 'cache', server: 'redis://a:1', down_ms: 7 }, 'Redis is up')
  vi.advanceTimersByTime(1000)
  expect(lines.slice(1)).toEqual([
    { level: 'info', message: 'Redis is up', fields: { redis: 'cache', server: 'redis://a:1', down_ms: 7 } },
  ])
})

it('names the masters of a cluster, and tells loss and return apart', () => {
  const { lines, log } = listen()
  const news = gatherNews(log)
  news.warn(of('cache', 'a:1'), 'Redis is down')
  news.warn(of('cache', 'b:1'), 'Redis is down')
  news.info(of('cache', 'a:1'), 'Redis is up')
  news.close()
  expect(lines.map(({ message, fields }) => [message, (fields as { server: string }).server])).toEqual([
    ['Redis is down', 'a:1, b:1'],
    ['Redis is up', 'a:1'],
  ])
  vi.advanceTimersByTime(1000)
  expect(lines).toHaveLength(2)
})
