/* A typical legacy parser: right for the input that it was tested with. */
#include <stdio.h>
#include <string.h>

/* Writes "KEY is VALUE" for a line KEY=VALUE. For a line without '=' it reads through a null pointer. */
void legacy_parse(const char *line, char *answer, size_t size)
{
    const char *equals = strchr(line, '=');
    const volatile char *value = equals + (equals != NULL);
    size_t length = 0;
    while (value[length] != '\0')
        length++;
    snprintf(answer, size, "%.*s is %.*s", (int)(equals - line), line, (int)length, (const char *)value);
}
