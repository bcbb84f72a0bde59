// The demo's presentation service: what a FastAPI application with a database behind a small connection pool looks like
// from outside. A request takes 250-450 ms and holds one of ten connections for 4/7 of that, so at best 50 requests/s
// come out of it and the rest queue: the "before" picture that the gateway is measured against.
//
// It knows nothing of caching: lists carry no Cache-Control, single items an ETag that is never compared.

import { failure, startBackend, wait } from './backend.ts'
import type { Answer, Backend, Call, Route } from './backend.ts'
import { ConnectionPool } from './connections.ts'
import { MAX_PRESENTATIONS, PresentationDatabase, sortWords } from './database.ts'
import { COUNTS } from './seed.ts'
import { choice, decodeBody, decodeFields, integer, optional, string } from './validation.ts'

export interface PresentationOptions {
  /** Default 0: any free port of 127.0.0.1. */
  readonly port?: number
  /** How long a request that needs the database takes, in ms, without the wait for a connection; default 250 to 450. */
  readonly delayMs?: { readonly min: number; readonly max: number }
  /** Database connections; default 10. */
  readonly poolSize?: number
}

export interface PresentationBackend extends Backend {
  /** SQL statements run for requests so far; also `GET /debug/queries`. */
  queries(): number
}

/** The rest of a request's time is the application's own: (250 + 450) / 2 ms * 4/7 = 200 ms of a connection. */
const CONNECTION_SHARE = 4 / 7
const MAX_WAITING = 100
const PRESENTATIONS = '/api/v1/presentations'

const id = integer(1, Number.MAX_SAFE_INTEGER)
const edit = {
  title: string(1, 200),
  description: string(0, 2000),
  status: choice(['draft', 'published', 'archived']),
  template_id: integer(1, COUNTS.templates),
  theme_id: integer(1, COUNTS.themes),
}
const whole = {
  title: edit.title,
  description: optional(edit.description, ''),
  status: optional(edit.status, 'draft'),
  template_id: optional(edit.template_id, 1),
  theme_id: optional(edit.theme_id, 1),
}
const partial = {
  title: optional(edit.title, null),
  description: optional(edit.description, null),
  status: optional(edit.status, null),
  template_id: optional(edit.template_id, null),
  theme_id: optional(edit.theme_id, null),
}
const paging = {
  page: optional(integer(1, 100_000), 1),
  page_size: optional(integer(1, 100), 20),
  sort: optional(choice(sortWords), 'created_at' as const),
}

/** Starts the service. Rejects where the port is taken. */
export async function startPresentationBackend(options: PresentationOptions = {}): Promise<PresentationBackend> {
  const database = new PresentationDatabase()
  const pool = new ConnectionPool(options.poolSize ?? 10, MAX_WAITING)
  const nextDelayMs = spread(options.delayMs ?? { min: 250, max: 450 })

  /** Runs a query as a request does: wait for a connection, hold it, then spend the application's own time. */
  const withDatabase = async (call: Call, query: () => Answer): Promise<Answer> => {
    if (!(await pool.acquire(call.signal))) return failure(503, 'Database connection pool exhausted')
    const delayMs = nextDelayMs()
    let answer: Answer
    try {
      answer = query()
      await wait(delayMs * CONNECTION_SHARE, call.signal)
    } finally {
      pool.release()
    }
    await wait(delayMs * (1 - CONNECTION_SHARE), call.signal)
    return answer
  }

  /** Reads one thing by the `:id` of the path. */
  const byId =
    (what: string, find: (id: number) => Readonly<Record<string, unknown>> | undefined) =>
    (call: Call): Answer | Promise<Answer> => {
      const path = decodeFields({ id }, call.params, 'path')
      if ('refusal' in path) return path.refusal
      return withDatabase(call, () => item(what, find(path.fields.id)))
    }

  const list = (find: () => readonly unknown[]) => (call: Call) =>
    withDatabase(call, () => {
      const items = find()
      return { status: 200, json: { items, total: items.length } }
    })

  const listPresentations = (call: Call): Answer | Promise<Answer> => {
    const query = decodeFields(paging, call.query, 'query')
    if ('refusal' in query) return query.refusal
    const { page, page_size, sort } = query.fields
    return withDatabase(call, () => {
      const { items, total } = database.listPresentations(page, page_size, sort)
      return { status: 200, json: { items, total, page, page_size, pages: Math.ceil(total / page_size) } }
    })
  }

  const create = (call: Call): Answer | Promise<Answer> => {
    const body = decodeBody(whole, call.body, call.headers)
    if ('refusal' in body) return body.refusal
    return withDatabase(call, () => {
      const created = database.createPresentation(body.fields)
      if (created === undefined) return failure(507, `This demo keeps at most ${MAX_PRESENTATIONS} presentations`)
      return { status: 201, json: database.presentation(created), headers: { Location: `${PRESENTATIONS}/${created}` } }
    })
  }

  const update =
    (rules: typeof whole | typeof partial) =>
    (call: Call): Answer | Promise<Answer> => {
      const path = decodeFields({ id }, call.params, 'path')
      if ('refusal' in path) return path.refusal
      const body = decodeBody(rules, call.body, call.headers)
      if ('refusal' in body) return body.refusal
      return withDatabase(call, () => {
        const found = database.updatePresentation(path.fields.id, body.fields)
        return item('Presentation', found ? database.presentation(path.fields.id) : undefined)
      })
    }

  const remove = (call: Call): Answer | Promise<Answer> => {
    const path = decodeFields({ id }, call.params, 'path')
    if ('refusal' in path) return path.refusal
    return withDatabase(call, () =>
      database.deletePresentation(path.fields.id) ? { status: 204 } : item('Presentation', undefined),
    )
  }

  const me = (call: Call): Answer | Promise<Answer> => {
    const [, token] = /^Bearer +(\S+)$/i.exec(call.headers.authorization ?? '') ?? []
    if (token === undefined) return unauthenticated('Not authenticated')
    return withDatabase(call, () => {
      const user = database.userByToken(token)
      return user === undefined ? unauthenticated('Invalid authentication credentials') : item('User', user)
    })
  }

  const routes: Route[] = [
    { method: 'GET', path: '/health', handle: () => ({ status: 200, json: { status: 'ok' } }) },
    { method: 'GET', path: '/debug/queries', handle: () => ({ status: 200, json: { queries: database.queries } }) },
    { method: 'GET', path: PRESENTATIONS, handle: listPresentations },
    { method: 'POST', path: PRESENTATIONS, handle: create },
    { method: 'GET', path: `${PRESENTATIONS}/:id`, handle: byId('Presentation', (id) => database.presentation(id)) },
    { method: 'PUT', path: `${PRESENTATIONS}/:id`, handle: update(whole) },
    { method: 'PATCH', path: `${PRESENTATIONS}/:id`, handle: update(partial) },
    { method: 'DELETE', path: `${PRESENTATIONS}/:id`, handle: remove },
    { method: 'GET', path: '/api/v1/templates', handle: list(() => database.templates()) },
    { method: 'GET', path: '/api/v1/templates/:id', handle: byId('Template', (id) => database.template(id)) },
    { method: 'GET', path: '/api/v1/themes', handle: list(() => database.themes()) },
    { method: 'GET', path: '/api/v1/themes/:id', handle: byId('Theme', (id) => database.theme(id)) },
    { method: 'GET', path: '/api/v1/users/me', handle: me },
    { method: 'GET', path: '/api/v1/users/:id', handle: byId('User', (id) => database.user(id)) },
  ]

  const backend = await startBackend('presentation', options.port ?? 0, routes)
  return {
    ...backend,
    queries: () => database.queries,
    async close() {
      await backend.close()
      database.close()
    },
  }
}

function item(what: string, found: Readonly<Record<string, unknown>> | undefined): Answer {
  return found === undefined ? failure(404, `${what} not found`) : { status: 200, json: found, etag: true }
}

const unauthenticated = (detail: string): Answer => failure(401, detail, { 'WWW-Authenticate': 'Bearer' })

/** Delays spread evenly over the range, the same ones on every run: multiples of the golden ratio, modulo 1. */
function spread(rangeMs: { readonly min: number; readonly max: number }): () => number {
  let turn = 0
  return () => {
    turn = (turn + 0.618_033_988_749_895) % 1
    return rangeMs.min + turn * (rangeMs.max - rangeMs.min)
  }
}
