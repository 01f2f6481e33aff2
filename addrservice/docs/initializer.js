// Swagger UI fills the example of a parameter into its field, and what is in a field is sent:
// a request would have every parameter that there is. So those that may be left out have their
// example in their description instead.
function moveExample(key, value) {
  if (value?.in && !value.required && 'example' in value) {
    value.description += ` For example \`${value.example}\`.`;
    delete value.example;
  }
  return value;
}

const examplesMoved = {
  statePlugins: {spec: {wrapActions: {
    updateSpec: original => text => original(JSON.stringify(JSON.parse(text, moveExample))),
  }}},
};

document.documentElement.classList.toggle(
  'dark-mode', matchMedia('(prefers-color-scheme: dark)').matches);

SwaggerUIBundle({
  dom_id: '#page',
  url: '/openapi.json',
  deepLinking: true,
  plugins: [examplesMoved],
  validatorUrl: null, // it would be another host
});
