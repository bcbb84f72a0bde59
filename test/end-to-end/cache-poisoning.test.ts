// What one client sends and the key lacks must not choose the answer that all others get.

import type { IncomingMessage } from 'node:http'
import { expect, it } from 'vitest'
import { type RequestOptions, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'

const cookiesOf = ({ headers }: IncomingMessage): string[] => (headers.cookie ?? '').split('; ').filter(Boolean)

/** The name of a parameter or cookie as PHP has it: nothing behind a NUL, and no blank, dot or lone bracket. */
const phpName = (name: string): string =>
  /^[^\0]*/
    .exec(name)?.[0]
    .replace(/\[.*\].*$/, '')
    .replaceAll(/[ .[]/g, '_') ?? ''

/** Greets in the language that it is told, as a page of PHP would. */
function greeting(message: IncomingMessage): string {
  const { searchParams } = new URL(message.url ?? '', 'http://a.test')
  const cookies = cookiesOf(message).map((cookie) => cookie.split('=') as [string, string])
  const told = new Map([...searchParams, ...cookies].map(([name, value]) => [phpName(name), value]))
  return `hello in ${told.get('my_lang') ?? 'en'}`
}

it.each<[string, string, RequestOptions]>([
  ['a parameter that PHP takes for a listed one', '/query?page=1&my[lang=xx', {}],
  ['the same behind a NUL', '/query?page=1&my_lang%00=xx', {}],
  ['the same with a dot', '/query?page=1&my.lang=xx', {}],
  ['a cookie that PHP takes for a named one', '/cookie', { headers: { Cookie: 'my.lang=xx' } }],
])('nobody else gets the answer to %s', async (_name, poison, options) => {
  const { gateway } = await startEdge({
    routes: [
      '{path: /query, cache: {ttl: 1h, key: {query: {only: [page, my_lang]}}}}',
      '{path: /cookie, cache: {ttl: 1h, scope: public, key: {cookies: [my_lang]}}}',
    ],
    script: (message, response) => void response.end(greeting(message)),
  })
  const { text } = await request(gateway.url + poison, options)
  expect(text).toBe('hello in xx')
  const url = gateway.url + (poison.startsWith('/query') ? '/query?page=1' : poison)
  expect((await request(url)).text).toBe('hello in en')
})

it.each(['X-Override-URL', 'X-Script-Name', 'X-Host-Override', 'X-Invoke-Path', 'X-Matched-Path'])(
  'nobody chooses by %s what is stored under a URL',
  async (name) => {
    const { gateway } = await startEdge({
      routes: ['{path: /*, cache: {ttl: 1h}}'],
      script: (message, response) => void response.end(String(message.headers[name.toLowerCase()] ?? 'the page')),
    })
    for (const headers of [{ [name]: 'poison' }, undefined]) {
      expect((await request(`${gateway.url}/page`, headers === undefined ? {} : { headers })).text).toBe('the page')
    }
  },
)
