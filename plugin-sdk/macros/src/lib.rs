//! `#[plugin_config]`, which `fthost-plugin-sdk` re-exports and documents.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Field, Fields, Lit, Meta, Result, parse_quote,
};

/// Makes a type the configuration of a plugin; see `fthost_plugin_sdk::plugin_config`.
#[proc_macro_attribute]
pub fn plugin_config(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let expanded = match syn::parse(item) {
        Ok(item) => expand(arguments.into(), item),
        Err(error) => Err(error),
    };
    expanded.unwrap_or_else(Error::into_compile_error).into()
}

fn expand(arguments: TokenStream, mut item: DeriveInput) -> Result<TokenStream> {
    let from_type = match arguments.to_string().as_str() {
        "" => false,
        "default" => true,
        _ => return Err(Error::new_spanned(arguments, "`plugin_config` takes nothing, or `default`")),
    };
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(item.generics, "a configuration has no type parameters"));
    }
    let from_type = from_type || item.attrs.iter().any(derives_default);
    let defaults = match &mut item.data {
        Data::Struct(data) => defaults(&item.ident, &mut data.fields, from_type)?,
        Data::Enum(_) => {
            item.attrs.push(parse_quote!(#[serde(rename_all = "snake_case")]));
            TokenStream::new()
        }
        Data::Union(data) => return Err(Error::new_spanned(data.union_token, "a union is no configuration")),
    };
    if from_type && matches!(item.data, Data::Struct(_)) {
        item.attrs.push(parse_quote!(#[serde(default)]));
    }
    Ok(quote! {
        #[derive(::fthost_plugin_sdk::serde::Deserialize, ::fthost_plugin_sdk::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, crate = "::fthost_plugin_sdk::serde")]
        #[schemars(crate = "::fthost_plugin_sdk::schemars")]
        #item
        #defaults
    })
}

fn derives_default(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let names = list.tokens.to_string();
    list.path.is_ident("derive") && names.split(',').any(|it| it.trim().ends_with("Default"))
}

/// Takes `#[default = value]` off the fields; each becomes a function that serde and the schema call, and where every
/// field has one the type gets `Default`.
fn defaults(name: &syn::Ident, fields: &mut Fields, from_type: bool) -> Result<TokenStream> {
    let Fields::Named(fields) = fields else { return Ok(TokenStream::new()) };
    let count = fields.named.len();
    let (mut functions, mut values) = (Vec::new(), Vec::new());
    for field in &mut fields.named {
        let Some(value) = default_of(field)? else { continue };
        let (ident, ty) = (field.ident.clone().expect("a named field"), field.ty.clone());
        let function = format_ident!("__default_{}", ident);
        let path = format!("{name}::{function}");
        field.attrs.push(parse_quote!(#[serde(default = #path)]));
        functions.push(quote! {
            #[doc(hidden)]
            fn #function() -> #ty { #value }
        });
        values.push(quote!(#ident: Self::#function()));
    }
    let whole = (values.len() == count && count > 0 && !from_type).then(|| {
        quote! {
            impl ::core::default::Default for #name {
                fn default() -> Self { Self { #(#values),* } }
            }
        }
    });
    Ok(quote! {
        impl #name { #(#functions)* }
        #whole
    })
}

/// The value of `#[default]` or `#[default = value]`; text becomes what the field holds, as in `String`.
fn default_of(field: &mut Field) -> Result<Option<TokenStream>> {
    let Some(at) = field.attrs.iter().position(|it| it.path().is_ident("default")) else { return Ok(None) };
    let attribute = field.attrs.remove(at);
    match attribute.meta {
        Meta::Path(_) => Ok(Some(quote!(::core::default::Default::default()))),
        Meta::NameValue(it) => match &it.value {
            text @ Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => {
                Ok(Some(quote!(::core::convert::Into::into(#text))))
            }
            value => Ok(Some(quote!(#value))),
        },
        Meta::List(list) => Err(Error::new_spanned(list, "write `#[default = value]`")),
    }
}
