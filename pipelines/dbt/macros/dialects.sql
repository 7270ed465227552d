{# What databases write differently. Without dbt, `convertly-source load --models` takes the texts
   whose names begin with default__, so each of them is one line without logic. #}

{# The time from one timestamp to a later one, in seconds, exact to the microsecond.
   dbt.datediff is not used: on DuckDB and PostgreSQL it depends on the time zone of the session. #}
{% macro seconds_between(earlier, later) %}
{{- adapter.dispatch('seconds_between')(earlier, later) -}}
{% endmacro %}

{% macro default__seconds_between(earlier, later) -%}
CAST(EXTRACT(EPOCH FROM {{ later }} - {{ earlier }}) AS DOUBLE PRECISION)
{%- endmacro %}

{% macro bigquery__seconds_between(earlier, later) -%}
TIMESTAMP_DIFF({{ later }}, {{ earlier }}, MICROSECOND) / 1000000
{%- endmacro %}

{% macro snowflake__seconds_between(earlier, later) -%}
CAST(DATEDIFF(microsecond, {{ earlier }}, {{ later }}) AS DOUBLE PRECISION) / 1000000
{%- endmacro %}

{% macro redshift__seconds_between(earlier, later) -%}
CAST(DATEDIFF(microsecond, {{ earlier }}, {{ later }}) AS DOUBLE PRECISION) / 1000000
{%- endmacro %}

{# The day of a timestamp in UTC, whatever the time zone of the session is. #}
{% macro utc_date(column) %}
{{- adapter.dispatch('utc_date')(column) -}}
{% endmacro %}

{% macro default__utc_date(column) -%}
CAST({{ column }} AT TIME ZONE 'UTC' AS DATE)
{%- endmacro %}

{% macro bigquery__utc_date(column) -%}
DATE({{ column }}, 'UTC')
{%- endmacro %}

{% macro snowflake__utc_date(column) -%}
CAST(CONVERT_TIMEZONE('UTC', {{ column }}) AS DATE)
{%- endmacro %}

{# A quotient that is no integer, null if the denominator is 0. #}
{% macro ratio(numerator, denominator) %}
{{- adapter.dispatch('ratio')(numerator, denominator) -}}
{% endmacro %}

{% macro default__ratio(numerator, denominator) -%}
CAST({{ numerator }} AS DOUBLE PRECISION) / NULLIF({{ denominator }}, 0)
{%- endmacro %}

{% macro bigquery__ratio(numerator, denominator) -%}
SAFE_DIVIDE({{ numerator }}, {{ denominator }})
{%- endmacro %}

{# A percentile of a group, of which a share of the values is less. It is approximate on BigQuery,
   which has an exact one only as a window function. #}
{% macro percentile(share, column) %}
{{- adapter.dispatch('percentile')(share, column) -}}
{% endmacro %}

{% macro default__percentile(share, column) -%}
PERCENTILE_CONT({{ share }}) WITHIN GROUP (ORDER BY {{ column }})
{%- endmacro %}

{% macro bigquery__percentile(share, column) -%}
APPROX_QUANTILES({{ column }}, 100)[OFFSET(CAST(100 * {{ share }} AS INT64))]
{%- endmacro %}
