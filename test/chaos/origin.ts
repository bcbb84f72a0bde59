// An origin as a process of its own, to be killed and stopped: answers after 5 ms, and writes the id of each request that
// changes something to its output, at once, so that a kill loses none.

import { writeSync } from 'node:fs'
import http from 'node:http'

const port = Number(process.argv[2])
const server = http.createServer((message, response) => {
  const id = message.headers['x-id']
  if (message.method === 'POST') writeSync(1, `${String(id)}\n`)
  message.resume()
  setTimeout(() => {
    response.setHeader('Cache-Control', message.url?.startsWith('/kept') === true ? 'max-age=1' : 'no-store')
    response.end(`${message.url}`)
  }, 5)
})
server.keepAliveTimeout = 60_000
server.listen(port, '127.0.0.1', () => process.send?.('listening'))
