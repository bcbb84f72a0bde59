// The presentation service over real sockets, as a client or a gateway meets it.

import { afterEach, describe, expect, it } from 'vitest'
import { startPresentationBackend } from '../../src/demo/presentation.ts'
import type { PresentationBackend, PresentationOptions } from '../../src/demo/presentation.ts'

const opened: PresentationBackend[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((backend) => backend.close()))
})

const AT_ONCE = { delayMs: { min: 0, max: 0 } }

async function start(options: PresentationOptions = AT_ONCE) {
  const backend = await startPresentationBackend(options)
  opened.push(backend)
  const ask = (path: string, init?: RequestInit) => fetch(`${backend.url}${path}`, init)
  const send = (method: string, path: string, body: unknown, type = 'application/json') =>
    ask(path, {
      method,
      headers: { 'Content-Type': type },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
  return { backend, ask, send }
}

interface Page {
  items: { id: number; title: string; created_at: string; slides?: unknown }[]
  total: number
  page: number
  page_size: number
  pages: number
}

const page = async (answer: Promise<Response>) => (await (await answer).json()) as Page
const PRESENTATIONS = '/api/v1/presentations'

describe('the presentation list', () => {
  it('is one page of twenty, with the totals, unless asked otherwise', async () => {
    const { ask } = await start()
    const { items, ...totals } = await page(ask(PRESENTATIONS))
    expect(totals).toEqual({ total: 240, page: 1, page_size: 20, pages: 12 })
    expect(items.map((item) => item.id)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
    expect(items[0]).toMatchObject({ title: 'Tides at a glance', owner_name: 'Ada Almeida', slide_count: 4 })
    expect(items[0]).not.toHaveProperty('slides')
  })

  it('gives every presentation exactly once over all its pages', async () => {
    const { ask } = await start()
    const pages = await Promise.all(
      [1, 2, 3].map((n) => page(ask(`${PRESENTATIONS}?page=${n}&page_size=100&sort=title`))),
    )
    expect(pages.map(({ items }) => items.length)).toEqual([100, 100, 40])
    expect(new Set(pages.flatMap(({ items }) => items.map(({ id }) => id))).size).toBe(240)
  })

  it('is empty beyond the last page', async () => {
    const { ask } = await start()
    expect(await page(ask(`${PRESENTATIONS}?page=13`))).toMatchObject({ items: [], total: 240 })
  })

  it.each([
    ['title', (a: string, b: string) => a <= b],
    ['-title', (a: string, b: string) => a >= b],
  ])('is sorted by %s', async (sort, inOrder) => {
    const { ask } = await start()
    const { items } = await page(ask(`${PRESENTATIONS}?page_size=100&sort=${sort}`))
    for (let i = 1; i < items.length; i++) expect(inOrder(items[i - 1]?.title ?? '', items[i]?.title ?? '')).toBe(true)
    expect(items[0]?.title).not.toBe(items.at(-1)?.title)
  })

  it('is the same bytes on every start', async () => {
    const [one, two] = [await start(), await start()]
    expect(await (await one.ask(PRESENTATIONS)).text()).toBe(await (await two.ask(PRESENTATIONS)).text())
  })

  it('says nothing of caching', async () => {
    const { ask } = await start()
    const { headers } = await ask(PRESENTATIONS)
    for (const name of ['cache-control', 'expires', 'etag', 'last-modified', 'vary'])
      expect(headers.has(name)).toBe(false)
    expect(headers.get('content-type')).toBe('application/json')
    expect(headers.get('x-backend')).toBe('presentation')
  })
})

describe('refusals of the presentation service', () => {
  it.each([
    ['GET', `${PRESENTATIONS}?page=0`, null, ['query', 'page'], 'greater_than_equal'],
    ['GET', `${PRESENTATIONS}?page_size=101`, null, ['query', 'page_size'], 'less_than_equal'],
    ['GET', `${PRESENTATIONS}?page=two`, null, ['query', 'page'], 'int_parsing'],
    ['GET', `${PRESENTATIONS}?sort=owner`, null, ['query', 'sort'], 'enum'],
    ['GET', `${PRESENTATIONS}/abc`, null, ['path', 'id'], 'int_parsing'],
    ['DELETE', `${PRESENTATIONS}/abc`, null, ['path', 'id'], 'int_parsing'],
    ['POST', PRESENTATIONS, '', ['body'], 'missing'],
    ['POST', PRESENTATIONS, '{"title": ', ['body'], 'json_invalid'],
    ['POST', PRESENTATIONS, '[1]', ['body'], 'model_attributes_type'],
    ['POST', PRESENTATIONS, '{}', ['body', 'title'], 'missing'],
    ['POST', PRESENTATIONS, '{"title": ""}', ['body', 'title'], 'string_too_short'],
    ['POST', PRESENTATIONS, JSON.stringify({ title: 'x'.repeat(201) }), ['body', 'title'], 'string_too_long'],
    ['POST', PRESENTATIONS, '{"title": "x", "template_id": 25}', ['body', 'template_id'], 'less_than_equal'],
    ['PUT', `${PRESENTATIONS}/1`, '{"status": "draft"}', ['body', 'title'], 'missing'],
    ['PATCH', `${PRESENTATIONS}/1`, '{"title": null}', ['body', 'title'], 'string_type'],
    ['PATCH', `${PRESENTATIONS}/x`, '{}', ['path', 'id'], 'int_parsing'],
  ])(
    'answers %s %s %s with a 422 that names %j, and asks the database nothing',
    async (method, path, body, loc, type) => {
      const { backend, ask, send } = await start()
      const answer = await (body === null ? ask(path, { method }) : send(method, path, body))
      expect(answer.status).toBe(422)
      const { detail } = (await answer.json()) as { detail: { loc: string[]; type: string; msg: string }[] }
      expect(detail).toEqual([{ loc, type, msg: expect.stringMatching(/^(?:Input|String|Field|JSON) /) as string }])
      expect(backend.queries()).toBe(0)
    },
  )

  it('name everything that is wrong at once', async () => {
    const { ask } = await start()
    const answer = (await (await ask(`${PRESENTATIONS}?page=x&page_size=0&sort=y`)).json()) as {
      detail: { loc: string[] }[]
    }
    expect(answer.detail.map(({ loc }) => loc[1])).toEqual(['page', 'page_size', 'sort'])
  })

  it('cover a body that is not labelled as JSON', async () => {
    const { send } = await start()
    expect((await send('POST', PRESENTATIONS, { title: 'x' }, 'text/plain')).status).toBe(422)
    expect((await send('POST', PRESENTATIONS, { title: 'x' }, 'application/json; charset=utf-8')).status).toBe(201)
  })

  it.each([
    ['GET', `${PRESENTATIONS}/241`, 404, { detail: 'Presentation not found' }],
    ['DELETE', `${PRESENTATIONS}/241`, 404, { detail: 'Presentation not found' }],
    ['GET', '/api/v1/templates/25', 404, { detail: 'Template not found' }],
    ['GET', '/api/v1/themes/13', 404, { detail: 'Theme not found' }],
    ['GET', '/api/v1/users/51', 404, { detail: 'User not found' }],
    ['GET', '/api/v2/presentations', 404, { detail: 'Not Found' }],
    ['POST', '/api/v1/templates', 405, { detail: 'Method Not Allowed' }],
  ])('answer %s %s with %i', async (method, path, status, json) => {
    const { ask } = await start()
    const answer = await ask(path, { method })
    expect([answer.status, await answer.json()]).toEqual([status, json])
  })
})

describe('a single presentation', () => {
  it('comes with its slides and an ETag', async () => {
    const { ask } = await start()
    const answer = await ask(`${PRESENTATIONS}/3`)
    const body = (await answer.json()) as { slides: unknown[]; slide_count: number }
    expect(body).toMatchObject({ id: 3, title: 'Glaciers at a glance', owner_id: 15, theme_id: 3 })
    expect(body.slides).toHaveLength(body.slide_count)
    expect(answer.headers.get('etag')).toMatch(/^"[0-9a-f]{32}"$/)
  })

  it('sends the whole answer to a conditional request: this backend compares no validators', async () => {
    const { ask } = await start()
    const etag = (await ask(`${PRESENTATIONS}/3`)).headers.get('etag') ?? ''
    const again = await ask(`${PRESENTATIONS}/3`, { headers: { 'If-None-Match': etag } })
    expect([again.status, again.headers.get('etag')]).toEqual([200, etag])
  })

  it('is created with 201 and a Location that leads to it', async () => {
    const { ask, send } = await start()
    const created = await send('POST', PRESENTATIONS, { title: 'Weirs', theme_id: '4', unknown: true })
    expect([created.status, created.headers.get('location')]).toEqual([201, `${PRESENTATIONS}/241`])
    const body = await created.json()
    expect(body).toMatchObject({ id: 241, title: 'Weirs', description: '', status: 'draft', theme_id: 4, slides: [] })
    expect(await (await ask(`${PRESENTATIONS}/241`)).json()).toEqual(body)
    expect(await page(ask(PRESENTATIONS))).toMatchObject({ total: 241 })
  })

  it('is replaced by PUT: what the body leaves out goes back to its default', async () => {
    const { ask, send } = await start()
    const before = (await ask(`${PRESENTATIONS}/2`)).headers.get('etag')
    const answer = await send('PUT', `${PRESENTATIONS}/2`, { title: 'New' })
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({ id: 2, title: 'New', description: '', status: 'draft', template_id: 1 })
    expect((await ask(`${PRESENTATIONS}/2`)).headers.get('etag')).not.toBe(before)
  })

  it('is changed by PATCH: what the body leaves out stays', async () => {
    const { send } = await start()
    const answer = await send('PATCH', `${PRESENTATIONS}/2`, { status: 'archived' })
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({
      id: 2,
      title: 'Rivers at a glance',
      status: 'archived',
      template_id: 6,
    })
  })

  it('is gone after DELETE, and its id is not used again', async () => {
    const { ask, send } = await start()
    const answer = await ask(`${PRESENTATIONS}/240`, { method: 'DELETE' })
    expect([answer.status, await answer.text(), answer.headers.get('content-type')]).toEqual([204, '', null])
    expect((await ask(`${PRESENTATIONS}/240`)).status).toBe(404)
    expect((await ask(`${PRESENTATIONS}/240`, { method: 'DELETE' })).status).toBe(404)
    expect((await send('POST', PRESENTATIONS, { title: 'x' })).headers.get('location')).toBe(`${PRESENTATIONS}/241`)
  })

  it.each(['PUT', 'PATCH'])('that does not exist cannot be changed by %s', async (method) => {
    const { send } = await start()
    expect((await send(method, `${PRESENTATIONS}/9999`, { title: 'x' })).status).toBe(404)
  })
})

describe('templates, themes and users', () => {
  it.each([
    ['/api/v1/templates', 24],
    ['/api/v1/themes', 12],
  ])('%s lists all %i, each of which is found alone under its id', async (path, count) => {
    const { ask } = await start()
    const { items, total } = await page(ask(path))
    expect([items.length, total]).toEqual([count, count])
    const last = items.at(-1)
    expect(await (await ask(`${path}/${last?.id}`)).json()).toEqual(last)
  })

  it('a user is shown to others without address and token', async () => {
    const { ask } = await start()
    const user = (await (await ask('/api/v1/users/50')).json()) as object
    expect(Object.keys(user)).toEqual(['id', 'name', 'role', 'created_at'])
  })

  it.each([
    [undefined, 401, 'Not authenticated'],
    ['Basic dXNlci03', 401, 'Not authenticated'],
    ['Bearer user-51', 401, 'Invalid authentication credentials'],
  ])('/users/me answers Authorization: %s with %i', async (authorization, status, detail) => {
    const { ask } = await start()
    const answer = await ask('/api/v1/users/me', authorization === undefined ? {} : { headers: { authorization } })
    expect([answer.status, await answer.json()]).toEqual([status, { detail }])
    expect(answer.headers.get('www-authenticate')).toBe('Bearer')
  })

  it('/users/me is another answer for each user', async () => {
    const { ask } = await start()
    const me = async (n: number) =>
      (await ask('/api/v1/users/me', { headers: { Authorization: `Bearer user-${n}` } })).json()
    expect(await me(7)).toMatchObject({ id: 7, name: 'Goran Almeida', email: 'goran.7@example.com' })
    expect(await me(8)).toMatchObject({ id: 8, name: 'Hana Almeida' })
  })
})

describe('the query counter', () => {
  it.each([
    ['GET', PRESENTATIONS, null, 2],
    ['HEAD', PRESENTATIONS, null, 2],
    ['GET', `${PRESENTATIONS}/1`, null, 1],
    ['POST', PRESENTATIONS, { title: 'x' }, 2],
    ['PUT', `${PRESENTATIONS}/1`, { title: 'x' }, 2],
    ['PATCH', `${PRESENTATIONS}/9999`, {}, 1],
    ['DELETE', `${PRESENTATIONS}/1`, null, 1],
    ['GET', '/api/v1/templates', null, 1],
    ['GET', '/api/v1/themes/2', null, 1],
    ['GET', '/api/v1/users/1', null, 1],
    ['GET', '/health', null, 0],
    ['GET', '/debug/queries', null, 0],
    ['GET', '/api/v1/users/me', null, 0],
  ])('counts for %s %s %j %i statements', async (method, path, body, queries) => {
    const { backend, ask, send } = await start()
    const answer = await (body === null ? ask(path, { method }) : send(method, path, body))
    await answer.text()
    expect(backend.queries()).toBe(queries)
    expect(await (await ask('/debug/queries')).json()).toEqual({ queries })
  })
})

/** Resolves with the body of a 503; rejects for any other outcome. */
const refused = async (answer: Promise<unknown>): Promise<unknown> =>
  (await answer) ?? Promise.reject(new Error('served'))

describe('the presentation service under load', () => {
  it('takes at least the shortest delay', async () => {
    const { ask } = await start({ delayMs: { min: 20, max: 20 } })
    const startedAtMs = performance.now()
    await ask('/api/v1/themes/1')
    expect(performance.now() - startedAtMs).toBeGreaterThan(18) // a timer may fire up to 1 ms early, and there are two
  })

  it('queues requests that find every connection busy', async () => {
    const { ask } = await start({ delayMs: { min: 14, max: 14 }, poolSize: 2 })
    const startedAtMs = performance.now()
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask('/api/v1/themes/1')))
    // 20 requests hold a connection for 8 ms each, two at a time.
    expect(performance.now() - startedAtMs).toBeGreaterThan(70)
    expect(answers.every(({ status }) => status === 200)).toBe(true)
  })

  it('answers 503 when the queue is full, and serves again once the crowd has left', async () => {
    const { backend, ask } = await start({ delayMs: { min: 20, max: 20 }, poolSize: 1 })
    const crowd = new AbortController()
    const answers = Array.from({ length: 150 }, async () => {
      const answer = await ask('/api/v1/themes/1', { signal: crowd.signal })
      if (answer.status !== 503) return null
      const refusal: unknown = await answer.json()
      crowd.abort()
      return refusal
    })
    expect(await Promise.any(answers.map(refused))).toEqual({ detail: 'Database connection pool exhausted' })
    await Promise.allSettled(answers)
    expect((await ask('/api/v1/themes/1')).status).toBe(200)
    // The hundred who left the queue never reached the database; at most 49 of the 150 came before them.
    expect(backend.queries()).toBeLessThan(100)
  })
})
