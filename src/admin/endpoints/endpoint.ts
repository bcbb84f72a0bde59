// What an admin endpoint is: one row of the table, a function from the gateway's Control and a decoded body to an answer.
// It knows no socket and no header; server.ts does the rest for all of them alike.

import type { z } from 'zod'
import type { Control } from '../../core/control.ts'

export interface Endpoint {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** `:name` stands for one segment. */
  readonly path: string
  /** One line for the index. */
  readonly summary: string
  /** True where no token is asked for. */
  readonly isOpen?: boolean
  /** body: the JSON of a POST, of any shape; for other methods the parameters of the query, by name. client: the address of
   *  who asks. segments: of the path, by name. */
  run(
    control: Control,
    body: unknown,
    client: string,
    segments: Readonly<Record<string, string>>,
  ): Answer | Promise<Answer>
}

export interface Answer {
  readonly status: number
  readonly type: string
  readonly text: string
  /** Header fields besides those of every answer. */
  readonly headers?: Readonly<Record<string, string>>
  /** What was changed and how it went, for the log; absent where nothing was. No secrets. */
  readonly change?: object
}

export const json = (value: unknown, status = 200): Answer => ({
  status,
  type: 'application/json',
  text: `${JSON.stringify(value)}\n`,
})

/** An error as problem+json (RFC 9457). title: the registered phrase of the status. */
export const problem = (status: number, title: string, detail: string): Answer => ({
  status,
  type: 'application/problem+json',
  text: `${JSON.stringify({ type: 'about:blank', title, status, detail })}\n`,
})

/** Runs with what the schema makes of the body, or answers 400 with every wrong field by its path. */
export function decoded<T>(
  schema: z.ZodType<T>,
  body: unknown,
  run: (value: T) => Answer | Promise<Answer>,
): Answer | Promise<Answer> {
  const result = schema.safeParse(body)
  if (result.success) return run(result.data)
  const wrong = result.error.issues.map((issue) => `${formatPath(issue.path)}: ${issue.message}`)
  return problem(400, 'Bad Request', wrong.join('; '))
}

function formatPath(path: readonly PropertyKey[]): string {
  let text = ''
  for (const key of path) text += typeof key === 'number' ? `[${key}]` : `${text === '' ? '' : '.'}${String(key)}`
  return text === '' ? 'body' : text
}
